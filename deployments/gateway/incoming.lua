-- The request's headers, read once: crossing into Envoy costs more than all that is done with them here.
local incoming = {}

-- values: the first value of each header, names lower case as Envoy has them. several: names that came more than once.
function incoming.read(handle)
  local values, several = {}, {}
  for name, value in pairs(handle:headers()) do
    if values[name] then several[name] = true else values[name] = value end
  end
  return { values = values, several = several }
end

return incoming
