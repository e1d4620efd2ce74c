-- Which deployment answers: by weight, at random or by a stable key; or by name.
local sha256 = require("sha256")

local routing = {}

-- `model@name` in its two parts; name is nil where there is none.
function routing.split(requested)
  local model, name = requested:match("^([^@]+)@(.+)$")
  return model or requested, name
end

local function by_name(backends, name)
  for _, backend in ipairs(backends) do
    if backend.names[name] or backend.version == name then return backend end
  end
  return nil
end

local function by_weight(route, point)
  local backends = route.backends
  point = point * route.weight
  for at = #backends, 1, -1 do -- production last: others only take from it
    point = point - backends[at].weight
    if point < 0 then return backends[at] end
  end
  return backends[1]
end

-- The backend; nil, status where there is none: 503 nothing is live or that version's server died, 404 no such version or
-- alias is.
function routing.choose(route, name, affinity)
  if not route or #route.backends == 0 then return nil, 503 end
  if name then
    local backend = by_name(route.backends, name)
    return backend, not backend and (by_name(route.dead, name) and 503 or 404) or nil
  end
  return by_weight(route, affinity and sha256.point(affinity) or math.random())
end

return routing
