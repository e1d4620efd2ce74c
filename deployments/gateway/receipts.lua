-- The receipt on an answer: what served it, in headers.
local receipts = {}

-- `served`: whether a deployment answered, and not Envoy in its place.
function receipts.put(headers, exchange, served)
  headers:replace("x-request-id", exchange.id)
  for name, value in pairs(exchange.rate_headers) do headers:replace(name, value) end
  headers:replace("x-llm-model", exchange.model)
  headers:replace("x-llm-version", exchange.backend.version)
  if not served then return end
  headers:replace("x-llm-digest", exchange.backend.digest)
  headers:replace("x-llm-deployment", exchange.backend.deployment)
end

return receipts
