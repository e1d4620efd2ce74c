-- Who may read metrics, and whose they are. Envoy runs `on_request` for every request at the metrics address. Where it goes
-- is said here alone: without this filter, and where it fails, a request has nowhere to go.
local sha256 = require("sha256")

local TOKEN_BYTES = 512
local GATEWAY, COLLECTOR, SERVER = "/metrics", "/metrics/audit", "^/metrics/vllm/([%w._-]+)$"

local metrics_access = {}

local token_file, clusters

-- `home`: the platform's state folder. `gateway`, `collector`: the clusters that answer for them. Nothing is opened here.
function metrics_access.configure(settings)
  token_file = settings.home .. "/monitoring/token"
  clusters = { [GATEWAY] = settings.gateway, [COLLECTOR] = settings.collector }
  return metrics_access
end

-- Read for every request, so that a new token counts at once. nil where there is none.
local function token()
  local file = io.open(token_file, "r")
  if not file then return nil end
  local text = file:read(TOKEN_BYTES)
  file:close()
  text = text and text:match("^%s*(.-)%s*$")
  return text ~= "" and text or nil
end

local function is_known(headers)
  local expected, sent = token(), headers:get("authorization")
  local _, scheme_end = (sent or ""):lower():find("^bearer +")
  return expected ~= nil and scheme_end ~= nil and sha256.equal(sent:sub(scheme_end + 1), expected)
end

local function refuse(handle, status, text, headers)
  headers = headers or {}
  headers[":status"], headers["content-type"] = status, "text/plain"
  handle:respond(headers, text .. "\n")
end

-- The cluster that answers, or the id of the deployment whose server does; neither where the request is answered here.
function metrics_access.on_request(handle)
  local headers = handle:headers()
  if not is_known(headers) then
    return refuse(handle, "401", "Metrics need the token in monitoring/token of the state folder, as Authorization: Bearer.",
      { ["www-authenticate"] = "Bearer" })
  end
  headers:remove("authorization")
  local path = headers:get(":method") == "GET" and headers:get(":path") or ""
  local cluster, deployment = clusters[path], path:match(SERVER)
  if not cluster and not deployment then return refuse(handle, "404", "There are no metrics at this address.") end
  if deployment then handle:streamInfo():dynamicMetadata():set("envoy.lb", "deployment", deployment) end
  return cluster, deployment
end

return metrics_access
