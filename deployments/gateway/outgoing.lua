-- The request's headers as vLLM gets them: a short list of those that it has a use for, and its own key. All others, so
-- the client's credentials, cookies, addresses and whatever steers Envoy's router, are removed.
local JSON = "application/json"
local KEPT = {
  [":authority"] = true, [":method"] = true, [":path"] = true, [":scheme"] = true, ["content-length"] = true,
  ["content-type"] = true, accept = true, ["user-agent"] = true, traceparent = true, tracestate = true,
  ["x-request-id"] = true, authorization = true, -- both replaced
  ["x-forwarded-proto"] = true, -- Envoy's own; it finds no route without it
}

local outgoing = {}

-- `sent`: the headers as they came (incoming.lua).
function outgoing.dress(headers, sent, endpoint, authorization)
  for name in pairs(sent.values) do
    if not KEPT[name] then headers:remove(name) end
  end
  if sent.values[":path"] ~= endpoint then headers:replace(":path", endpoint) end
  if sent.several["content-type"] or sent.values["content-type"] ~= JSON then headers:replace("content-type", JSON) end
  headers:replace("authorization", authorization)
end

return outgoing
