-- What the journals say now: API keys, tenants, routes. A line is read when somebody asks for it; what was asked lately is
-- kept read.
local journals = require("journals")
local json = require("json")
local places = require("places")

local KEPT_READ = 512

local registry = {}

-- The lines of a journal by name. `name_of(event)`: whose line it is; `read(event)`: what is made of it.
local function shelf(name_of, read)
  local self, lines, cache, count = {}, places.new(), {}, 0
  function self.forget() lines, cache, count = places.new(), {}, 0 end
  function self.take(event, offset, length)
    local name = name_of(event)
    cache[name] = nil
    if event.gone then lines:remove(name) else lines:put(name, offset, length) end
  end
  function self.revoke(name) lines:revoke(name) end
  function self.revoked(name) return (select(3, lines:find(name))) == true end
  function self.get(name)
    local value = cache[name]
    if value then return value end
    local offset, length = lines:find(name)
    if not offset then return nil end
    local event = self.journal:event(offset, length)
    if name_of(event) ~= name then return nil end
    if count >= KEPT_READ then cache, count = {}, 0 end
    value = read(event)
    cache[name], count = value, count + 1
    return value
  end
  return self
end

local function set_of(list)
  if not list then return nil end
  local set = {}
  for _, each in ipairs(list) do set[each] = true end
  return set
end

local function text(event, field)
  local value = event[field]
  if type(value) ~= "string" then error("'" .. field .. "' is missing", 0) end
  return value
end

-- null means all in a key's lists; what a key may ask is never more than what its tenant may.
local function key_of(event)
  return {
    via = "key", id = text(event, "id"), hash = text(event, "hash"), tenant = text(event, "tenant"),
    actor = event.actor or event.name or event.id, models = set_of(event.models), expires = event.expires,
    risk_classes = set_of(event.risk_classes), limits = event.limits, meter = "key " .. event.id,
  }
end

local function tenant_of(event)
  return {
    name = text(event, "tenant"), models = event.models or {}, risk_classes = set_of(event.risk_classes) or {},
    limits = event.limits, jwt = event.jwt, meter = "tenant " .. event.tenant,
  }
end

local function receipt_of(event, backend)
  return table.concat({
    '"model":', json.string(event.model), ',"version":', json.string(backend.version),
    ',"digest":', json.string(backend.digest), ',"deployment":', json.string(backend.deployment),
  })
end

local function route_of(event)
  local weight, live, dead = 0, {}, {}
  for _, backend in ipairs(event.backends) do
    backend.names = set_of(backend.names) or {}
    backend.json = receipt_of(event, backend) -- as every record of it says
    if backend.dead then
      dead[#dead + 1] = backend
    else
      live[#live + 1], weight = backend, weight + backend.weight
    end
  end
  return {
    model = event.model, model_json = json.string(event.model), backends = live, dead = dead, weight = weight,
    authorization = "Bearer " .. (event.key or ""),
  }
end

local function route_name(tenant, model) return tenant .. "/" .. model end

local function name_of_key(event) return text(event, "id") end
local function name_of_tenant(event) return text(event, "tenant") end

local function name_of_route(event)
  if type(event.backends) ~= "table" then error("'backends' is missing", 0) end
  return route_name(text(event, "tenant"), text(event, "model"))
end

local keys = shelf(name_of_key, key_of)
local tenants = shelf(name_of_tenant, tenant_of)
local routes = shelf(name_of_route, route_of)
local followed = {}

local function take_key(event, offset, length)
  if event.event == "revoked" then
    keys.revoke(text(event, "id"))
  elseif event.event == "created" then
    keys.take(event, offset, length)
  else
    error("an event that is neither created nor revoked", 0)
  end
end

-- `folder`: where the journals lie. Nothing is opened before the first `catch_up`.
function registry.configure(folder)
  keys.journal = journals.follow(folder .. "/keys.jsonl", keys.forget, take_key)
  tenants.journal = journals.follow(folder .. "/tenants.jsonl", tenants.forget, tenants.take)
  routes.journal = journals.follow(folder .. "/routes.jsonl", routes.forget, routes.take)
  followed = { keys.journal, tenants.journal, routes.journal }
end

function registry.catch_up()
  for at = 1, #followed do followed[at]:catch_up() end
end

-- Grows with everything that the journals say.
function registry.version()
  local version = 0
  for at = 1, #followed do version = version + followed[at].read end
  return version
end

function registry.key(id) return keys.get(id) end
function registry.revoked(id) return keys.revoked(id) end
function registry.tenant(name) return tenants.get(name) end
function registry.route(tenant, model) return routes.get(route_name(tenant, model)) end

return registry
