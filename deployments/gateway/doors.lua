-- Which tenant's door a request came through, and what it asks there. Exact matches only: nothing is decoded or folded,
-- so `/v1//models`, `/v1/../v1/models` and `/V1/models` are no doors.
local doors = {}

local POST, GET = "POST", "GET"
local ENDPOINTS = {
  ["/v1/chat/completions"] = POST, ["/v1/completions"] = POST, ["/v1/embeddings"] = POST, ["/v1/models"] = GET,
}

local suffix

-- `domain`: tenants are <tenant>.llm.<domain>.
function doors.configure(domain) suffix = ".llm." .. domain:lower() end

local function tenant_of_host(authority)
  local host = authority:lower():gsub(":%d+$", "")
  if host:sub(-#suffix) ~= suffix then return nil end
  return host:sub(1, -#suffix - 1)
end

local function is_label(name) return #name <= 63 and name:find("^[a-z0-9][a-z0-9-]*$") ~= nil end

-- tenant, path of the endpoint, path without its query; nil, nil, path where it is no door. A query is nobody's business
-- and may hold secrets: it is neither kept nor sent on.
function doors.find(method, authority, target)
  local path = target:match("^[^?#]*")
  local tenant = tenant_of_host(authority)
  local named, rest = path:match("^/t/([^/]+)(/.*)$")
  if named and tenant and named ~= tenant then return nil, nil, path end
  tenant = tenant or named
  local endpoint = rest or path
  if not tenant or not is_label(tenant) or ENDPOINTS[endpoint] ~= method then return nil, nil, path end
  return tenant, endpoint, path
end

return doors
