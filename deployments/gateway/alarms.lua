-- What operators must know, in Envoy's log at level critical: never a key, never a body, and of one kind at most a line a
-- second, so that a full disk is not filled further by being told.
local posix = require("posix")

local EVERY_S = 1

local alarms = {}
local told_at, untold = {}, {}

-- `kind` is what it is about; a line says how many of its kind were left out before it.
function alarms.raise(handle, kind, message)
  local now = posix.monotonic()
  if told_at[kind] and now - told_at[kind] < EVERY_S then
    untold[kind] = (untold[kind] or 0) + 1
    return
  end
  local before = untold[kind] and " (" .. untold[kind] .. " more of this kind before)" or ""
  told_at[kind], untold[kind] = now, nil
  handle:logCritical(kind .. ": " .. message .. before)
end

return alarms
