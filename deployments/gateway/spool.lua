-- The spool: records in JSON Lines files that a collector reads. A record counts once write(2) has taken all of it; one
-- that the disk takes only in part is taken back. What cannot be written now and must not be lost waits for the next write.
-- Not covered: a power cut between write(2) and the disk.
local posix = require("posix")

local FILE_BYTES = 16 * 1024 * 1024
local CLOSED, LOOK_EVERY_S = -1, 1
local TRIED = (" "):rep(4096) -- a block of most disks, and more than most records

local spool = {}
local folder, boot
local lock_fd = CLOSED
local fd, size, sequence, looked_at = CLOSED, 0, 0, 0
local waiting, waiting_bytes = {}, 0
local tried_at, room, no_room_why = -LOOK_EVERY_S, true, nil

-- Nothing is opened before the first record: Envoy loads the filter in threads that serve nothing.
function spool.configure(path) folder = path end

local function fail(what, number) return nil, "the spool cannot be " .. what .. ": " .. posix.message(number) end

-- Files are in the order of their numbers, so a boot's is higher than any that lies there, whatever the clock says. Its lock
-- tells the collector that more may come for as long as this process lives.
local function begin_boot()
  posix.make_folder(folder)
  local number = math.floor(posix.now() * 1000)
  for _, name in ipairs(posix.names(folder)) do
    number = math.max(number, (tonumber(name:match("^(%d+)[-.]")) or 0) + 1)
  end
  local text = string.format("%.0f", number)
  if lock_fd ~= CLOSED then posix.close(lock_fd) end
  local opened, why = posix.open_to_append(folder .. "/" .. text .. ".lock")
  lock_fd = opened < 0 and CLOSED or opened
  if opened < 0 then return fail("opened", why) end
  local locked
  locked, why = posix.lock(lock_fd)
  if not locked then return fail("locked", why) end
  boot = text
  return true
end

local function open_file() return posix.open_to_append(string.format("%s/%s-%06d.jsonl", folder, boot, sequence + 1)) end

local function open_next()
  if fd ~= CLOSED then posix.close(fd) end
  fd = CLOSED
  if not boot then
    local begun, why = begin_boot()
    if not begun then return nil, why end
  end
  local number
  fd, number = open_file()
  if fd < 0 and number == posix.MISSING and begin_boot() then fd, number = open_file() end -- somebody removed the folder
  if fd < 0 then
    fd = CLOSED
    return fail("opened", number)
  end
  sequence, size = sequence + 1, posix.size_and_links(fd)
  return true
end

-- Notices within LOOK_EVERY_S a file that somebody removed: records must not go where nobody can find them.
local function still_there()
  local now = posix.monotonic()
  if now - looked_at < LOOK_EVERY_S then return true end
  looked_at = now
  local _, links = posix.size_and_links(fd)
  return links ~= 0
end

local function opened()
  if fd ~= CLOSED and size < FILE_BYTES and still_there() then return true end
  return open_next()
end

local function append(text)
  local there, why = opened()
  if not there then return nil, why end
  local written, number = posix.write(fd, text)
  if number then
    if written > 0 and not posix.truncate(fd, size) then fd = CLOSED end -- the next record starts a new file
    return fail("written", number)
  end
  size = size + written
  return true
end

local function append_waiting()
  if waiting_bytes == 0 then return true end
  local written, why = append(table.concat(waiting))
  if written then waiting, waiting_bytes = {}, 0 end
  return written, why
end

-- Writes a record (JSON and its end of line). true, or nil and why it is not written.
function spool.write(record)
  local written, why = append_waiting()
  if not written then return nil, why end
  return append(record)
end

-- As write, for what has happened and nobody can be refused for: it is written before anything else is.
function spool.keep(record)
  if spool.write(record) then return end
  waiting[#waiting + 1] = record
  waiting_bytes = waiting_bytes + #record
end

-- Whether there is room for a record: written as a line without an end, which no collector reads, and taken back.
local function try_a_record()
  local there, why = opened()
  if not there then return nil, why end
  local _, number = posix.write(fd, TRIED)
  if not posix.truncate(fd, size) then fd = CLOSED end
  if number then return fail("written", number) end
  return true
end

-- Whether records can be written: tried at most once in LOOK_EVERY_S, because everybody may ask.
function spool.ready()
  local written, why = append_waiting()
  if not written then return nil, why end
  local now = posix.monotonic()
  if now - tried_at >= LOOK_EVERY_S then
    tried_at = now
    room, no_room_why = try_a_record()
  end
  return room, no_room_why
end

return spool
