-- A stand-in for the gateway's filter: the header `x-deployment` says which deployment answers.
local gateway = {}

function gateway.configure(settings) gateway.settings = settings end

function gateway.on_request(handle)
  local headers = handle:headers()
  local id = headers:get("x-request-id")
  handle:streamInfo():dynamicMetadata():set("stand-in", "id", id)
  if headers:get(":path") == "/configured" then
    handle:respond({ [":status"] = "418", ["x-request-id"] = id, ["content-type"] = "application/json" },
      '{"home":"' .. gateway.settings.home .. '","domain":"' .. gateway.settings.domain .. '"}')
    return
  end
  if headers:get(":path") == "/broken" then error("the filter failed") end
  local deployment = headers:get("x-deployment") or "nobody"
  handle:streamInfo():dynamicMetadata():set("envoy.lb", "deployment", deployment)
  handle:body()
  return deployment
end

function gateway.on_response(handle)
  handle:headers():add("x-filtered", "yes")
  local known = handle:streamInfo():dynamicMetadata():get("stand-in")
  if known then handle:headers():replace("x-request-id", known.id) end
end

return gateway
