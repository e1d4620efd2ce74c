-- What the gateway answers by itself: the list of models and its own health.
local access = require("access")
local alarms = require("alarms")
local ends = require("ends")
local errors = require("errors")
local exchanges = require("exchanges")
local json = require("json")
local records = require("records")
local refusals = require("refusals")
local registry = require("registry")
local sha256 = require("sha256")
local spool = require("spool")
local tallies = require("tallies")

local concat, format = table.concat, string.format

local listing = {}

local function respond(handle, id, body)
  exchanges.answered(handle)
  handle:respond({ [":status"] = "200", ["content-type"] = errors.JSON, ["x-request-id"] = id }, body)
end

-- An answer about models: on the record first.
local function respond_on_record(handle, known, identity, tenant, body)
  local recorded, why = records.listed(known, identity, tenant.name, sha256.hex(body), #body)
  if recorded then return respond(handle, known.id, body) end
  alarms.raise(handle, "a request is not on the record", why)
  return refusals.answer(handle, known, refusals.AUDIT_UNAVAILABLE)
end

-- The names under which a live model can be asked, its own first, each with the version that it means.
local function names_of(model, route)
  local names, versions = { model }, { [model] = route.backends[1] }
  local function add(name, backend)
    local full = model .. "@" .. name
    if not versions[full] then names[#names + 1], versions[full] = full, backend end
  end
  for _, backend in ipairs(route.backends) do
    for name in pairs(backend.names) do add(name, backend) end
    add(backend.version, backend)
  end
  return names, versions
end

-- `created`: when the version was made, in epoch seconds; a route that an earlier release wrote does not say.
local function entry(name, backend, tenant)
  return concat({
    '{"id":', json.string(name), ',"object":"model","created":', format("%.0f", backend.created or 0),
    ',"owned_by":', json.string(tenant), "}",
  })
end

-- GET /v1/models: what this identity may ask and what is live.
function listing.models(handle, known, identity, tenant)
  local entries = {}
  for model in pairs(tenant.models) do
    local route = registry.route(tenant.name, model)
    if route and #route.backends > 0 and access.check(identity, tenant, model) then
      local names, versions = names_of(model, route)
      for _, name in ipairs(names) do entries[#entries + 1] = entry(name, versions[name], tenant.name) end
    end
  end
  table.sort(entries)
  respond_on_record(handle, known, identity, tenant, '{"object":"list","data":[' .. concat(entries, ",") .. "]}")
end

-- GET /v1/models/<name>: one of them, which is `known.requested`. `backend`: the version that the name means.
function listing.model(handle, known, identity, tenant, backend)
  respond_on_record(handle, known, identity, tenant, entry(known.requested, backend, tenant.name))
end

-- GET /healthz: whether requests can be decided on and recorded. Also finds clients that went away.
function listing.health(handle, id)
  exchanges.find_abandoned()
  ends.clear()
  tallies.write()
  registry.catch_up()
  local ready, why = spool.ready()
  if ready then return respond(handle, id, '{"status":"ok"}') end
  alarms.raise(handle, "records wait to be written", why)
  exchanges.answered(handle)
  errors.respond(handle, refusals.AUDIT_UNAVAILABLE, id)
end

return listing
