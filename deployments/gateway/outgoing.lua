-- The request's headers as vLLM gets them: a short list of those that it has a use for, and its own key. All others, so
-- the client's credentials, cookies, addresses and whatever steers Envoy's router, are removed.
local KEPT = {
  [":authority"] = true, [":method"] = true, [":path"] = true, [":scheme"] = true, ["content-length"] = true,
  ["transfer-encoding"] = true, accept = true, ["user-agent"] = true, traceparent = true, tracestate = true,
  ["x-request-id"] = true,
  ["x-forwarded-proto"] = true, -- Envoy's own; it finds no route without it
}

local outgoing = {}

function outgoing.dress(headers, endpoint, authorization, length)
  local removed = {}
  for name in pairs(headers) do
    if not KEPT[name] then removed[#removed + 1] = name end
  end
  for at = 1, #removed do headers:remove(removed[at]) end
  headers:replace(":path", endpoint)
  headers:replace("content-type", "application/json")
  headers:replace("authorization", authorization)
  headers:replace("content-length", tostring(length))
  headers:remove("transfer-encoding")
end

return outgoing
