-- The spool: records in JSON Lines files that a collector reads. A record counts once write(2) has taken all of it; one
-- that the disk takes only in part is taken back. What cannot be written now and must not be lost waits for the next write.
-- Not covered: a power cut between write(2) and the disk.
local posix = require("posix")

local FILE_BYTES = 16 * 1024 * 1024
local CLOSED, LOOK_EVERY_S = -1, 1

local spool = {}
local folder, boot
local fd, size, sequence, looked_at = CLOSED, 0, 0, 0
local waiting, waiting_bytes = {}, 0

-- Nothing is opened before the first record: Envoy loads the filter in threads that serve nothing.
function spool.configure(path) folder = path end

local function fail(what, number) return nil, "the spool cannot be " .. what .. ": " .. posix.message(number) end

local function open_next()
  if fd ~= CLOSED then posix.close(fd) end
  boot = boot or string.format("%.0f", posix.now() * 1000)
  local path = string.format("%s/%s-%06d.jsonl", folder, boot, sequence + 1)
  local number
  fd, number = posix.open_to_append(path)
  if fd < 0 and number == posix.MISSING and posix.make_folder(folder) then fd, number = posix.open_to_append(path) end
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

local function append(text)
  if fd == CLOSED or size >= FILE_BYTES or not still_there() then
    local opened, why = open_next()
    if not opened then return nil, why end
  end
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

-- Whether records can be written, as far as is known without writing one.
function spool.ready()
  return append_waiting()
end

return spool
