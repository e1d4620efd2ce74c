-- The receipt on an answer: what served it, in headers.
local receipts = {}

local DROPPED = { "server", "x-envoy-upstream-service-time", "x-envoy-attempt-count", "set-cookie" }

-- `served`: whether a deployment answered, and not Envoy in its place.
function receipts.put(headers, exchange, served)
  for _, name in ipairs(DROPPED) do headers:remove(name) end
  headers:replace("x-request-id", exchange.id)
  for name, value in pairs(exchange.rate_headers) do headers:replace(name, value) end
  headers:replace("x-llm-model", exchange.model)
  headers:replace("x-llm-version", exchange.backend.version)
  if not served then return end
  headers:replace("x-llm-digest", exchange.backend.digest)
  headers:replace("x-llm-deployment", exchange.backend.deployment)
end

return receipts
