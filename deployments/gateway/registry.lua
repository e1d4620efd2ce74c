-- What the journals say now: API keys, tenants, routes. Lines are kept as text and read when somebody asks, so that ten
-- thousand tenants cost the garbage collector little; what was asked lately is kept read.
local journals = require("journals")
local json = require("json")

local KEPT_READ = 4096

local registry = {}

-- Texts by name, with a cache of what `read` makes of them.
local function shelf(read)
  local lines, cache, count = {}, {}, 0
  local self = {}
  function self.forget() lines, cache, count = {}, {}, 0 end
  function self.put(name, line) lines[name], cache[name] = line, nil end
  function self.get(name)
    local value = cache[name]
    if value then return value end
    local line = lines[name]
    if not line then return nil end
    if count >= KEPT_READ then cache, count = {}, 0 end
    value = read(assert(json.decode(line)))
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
  local weight = 0
  for _, backend in ipairs(event.backends) do
    weight = weight + backend.weight
    backend.names = set_of(backend.names) or {}
    backend.json = receipt_of(event, backend) -- as every record of it says
  end
  return {
    model = event.model, model_json = json.string(event.model), backends = event.backends, weight = weight,
    authorization = "Bearer " .. (event.key or ""),
  }
end

local keys, tenants, routes = shelf(key_of), shelf(tenant_of), shelf(route_of)
local revoked = {}
local followed = {}

local function forget_keys()
  revoked = {}
  keys.forget()
end

-- A revocation is final, whatever comes after it.
local function take_key(event, line)
  local id = text(event, "id")
  if event.event == "revoked" then
    revoked[id] = true
  elseif event.event == "created" then
    keys.put(id, line)
  else
    error("an event that is neither created nor revoked", 0)
  end
end

local function take_tenant(event, line)
  tenants.put(text(event, "tenant"), not event.gone and line or nil)
end

local function route_name(tenant, model) return tenant .. "/" .. model end

local function take_route(event, line)
  if type(event.backends) ~= "table" then error("'backends' is missing", 0) end
  routes.put(route_name(text(event, "tenant"), text(event, "model")), line)
end

-- `folder`: where the journals lie. Nothing is opened before the first `catch_up`.
function registry.configure(folder)
  followed = {
    journals.follow(folder .. "/keys.jsonl", forget_keys, take_key),
    journals.follow(folder .. "/tenants.jsonl", tenants.forget, take_tenant),
    journals.follow(folder .. "/routes.jsonl", routes.forget, take_route),
  }
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
function registry.revoked(id) return revoked[id] == true end
function registry.tenant(name) return tenants.get(name) end
function registry.route(tenant, model) return routes.get(route_name(tenant, model)) end

return registry
