-- The request's headers, read once: crossing into Envoy costs more than all that is done with them here.
local new_table = require("table.new")

local NAMES = 16 -- of an ordinary request, so that the table does not grow five times over

local NONE = {}

local incoming = {}

-- values: the first value of each header, names lower case as Envoy has them. several: names that came more than once.
function incoming.read(handle)
  local values, several = new_table(0, NAMES), NONE
  for name, value in pairs(handle:headers()) do
    if not values[name] then
      values[name] = value
    else
      if several == NONE then several = {} end
      several[name] = true
    end
  end
  return { values = values, several = several }
end

return incoming
