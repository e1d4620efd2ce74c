-- What the gateway answers by itself: the list of models and its own health.
local access = require("access")
local alarms = require("alarms")
local errors = require("errors")
local exchanges = require("exchanges")
local json = require("json")
local limits = require("limits")
local refusals = require("refusals")
local registry = require("registry")
local spool = require("spool")

local listing = {}

local function respond(handle, id, body)
  exchanges.answered(handle)
  handle:respond({ [":status"] = "200", ["content-type"] = errors.JSON, ["x-request-id"] = id }, body)
end

-- The names under which a live model can be asked, its own first.
local function names_of(model, route)
  local names, seen = { model }, { [model] = true }
  local function add(name)
    local full = model .. "@" .. name
    if not seen[full] then names[#names + 1], seen[full] = full, true end
  end
  for _, backend in ipairs(route.backends) do
    for name in pairs(backend.names) do add(name) end
    add(backend.version)
  end
  return names
end

local function entry(name, tenant)
  return '{"id":' .. json.string(name) .. ',"object":"model","created":0,"owned_by":' .. json.string(tenant) .. "}"
end

-- GET /v1/models: what this identity may ask and what is live.
function listing.models(handle, id, identity, tenant)
  local entries = {}
  for model in pairs(tenant.models) do
    local route = registry.route(tenant.name, model)
    if route and #route.backends > 0 and access.check(identity, tenant, model) then
      for _, name in ipairs(names_of(model, route)) do entries[#entries + 1] = entry(name, tenant.name) end
    end
  end
  table.sort(entries)
  respond(handle, id, '{"object":"list","data":[' .. table.concat(entries, ",") .. "]}")
end

-- GET /healthz: whether requests can be decided on and recorded. Also finds clients that went away.
function listing.health(handle, id)
  limits.collect()
  registry.catch_up()
  local ready, why = spool.ready()
  if ready then return respond(handle, id, '{"status":"ok"}') end
  alarms.raise(handle, "records wait to be written", why)
  exchanges.answered(handle)
  errors.respond(handle, refusals.AUDIT_UNAVAILABLE, id)
end

return listing
