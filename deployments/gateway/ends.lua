-- What Envoy ended without the filter: its access log has a line for each request whose client or server went away, and for
-- each that it refused because it was short of memory. What was read is given back to the disk, so that the file stays small
-- however long it gets; a line holds a client's address.
local json = require("json")
local posix = require("posix")
local request_ids = require("request_ids")

local CLOSED, LONGEST = -1, 1024 * 1024
local LEFT = { DC = true, DR = true, SI = true, DT = true } -- Envoy's flags: the client went, or took nothing for too long
local OVERLOADED = "overload"

local ends = {}
local path, take, refuse
local fd, offset, dropped = CLOSED, 0, 0

function ends.configure(file) path = file end

-- `take_end({ id, status, left })`: `left` is whether it was the client that went away.
function ends.follow(take_end) take = take_end end

-- `take_refusal({ id, at, status, remote })` is told of what was refused for want of memory.
function ends.refused(take_refusal) refuse = take_refusal end

local function opened()
  if fd ~= CLOSED then return true end
  local found = posix.open_to_change(path)
  if found < 0 then return false end
  fd, offset, dropped = found, posix.first_kept(found) or posix.size_and_links(found), 0
  return true
end

local function take_line(line)
  local ended = json.decode(line)
  if not ended then return end
  if ended.details == OVERLOADED then
    return refuse({ id = ended.told or request_ids.new(), at = tonumber(ended.at) or posix.now(), status = ended.status, remote = ended.remote })
  end
  local left = false
  for flag in (ended.flags or ""):gmatch("[^,]+") do left = left or LEFT[flag] == true end
  take({ id = ended.id, status = ended.status, left = left })
end

-- Takes what was written since the last call.
function ends.catch_up()
  if not opened() then return end
  local size, links = posix.size_and_links(fd)
  if not size or links == 0 or size < offset then
    posix.close(fd)
    fd = CLOSED
    return
  end
  while size > offset do
    local text = posix.read_at(fd, offset, math.min(size - offset, LONGEST))
    local last = text and text:find("\n[^\n]*$")
    if not last then return end
    for line in text:sub(1, last):gmatch("[^%z\n]+") do pcall(take_line, line) end
    offset = offset + last
  end
end

-- Gives back to the disk what was taken.
function ends.clear()
  if fd == CLOSED or dropped == offset then return end
  if posix.drop(fd, offset) then dropped = offset end
end

return ends
