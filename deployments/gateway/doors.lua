-- Which tenant's door a request came through, and what is asked there. Exact matches only: nothing is decoded or folded,
-- so `/v1//models`, `/v1/../v1/models` and `/V1/models` are no doors.
local doors = {}

local suffix

-- `domain`: tenants are <tenant>.llm.<domain>.
function doors.configure(domain) suffix = ".llm." .. domain:lower() end

local function tenant_of_host(authority)
  local host = authority:lower():gsub(":%d+$", "")
  if host:sub(-#suffix) ~= suffix then return nil end
  return host:sub(1, -#suffix - 1)
end

local function is_label(name) return #name <= 63 and name:find("^[a-z0-9][a-z0-9-]*$") ~= nil end

-- tenant, path at its door, path as it came; nil, nil, path where it is no door. None of them has a query: that is nobody's
-- business and may hold secrets, so it is neither kept nor sent on.
function doors.find(authority, target)
  local path = target:match("^[^?#]*")
  local tenant = tenant_of_host(authority)
  local named, rest = path:match("^/t/([^/]+)(/.*)$")
  if named and tenant and named ~= tenant then return nil, nil, path end
  tenant = tenant or named
  if not tenant or not is_label(tenant) then return nil, nil, path end
  return tenant, rest or path, path
end

return doors
