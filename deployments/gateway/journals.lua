-- Follows an append-only JSON Lines file: what was appended counts from the next `catch_up` on, which costs one system
-- call while nothing was. A last line without its end waits. A file that was replaced, cut or removed is read anew.
-- A whole line that cannot be read could be a revocation, so nothing of that journal counts until the file changes.
local json = require("json")
local posix = require("posix")

local CLOSED = -1

local Journal = {}
Journal.__index = Journal

local journals = {}

-- `forget` is called before the file is read from its beginning, `take(event, offset, length)` for every line.
function journals.follow(path, forget, take)
  return setmetatable({ path = path, forget = forget, take = take, fd = CLOSED, offset = 0, lines = 0, known = 0, read = 0 }, Journal)
end

function Journal:fail(what, why)
  local message = self.path .. " cannot be " .. what .. ": " .. why
  if self.fd ~= CLOSED then self.damaged = message end
  error(message, 0)
end

local function start_anew(self)
  if self.fd ~= CLOSED then posix.close(self.fd) end
  self.fd, self.offset, self.lines, self.known, self.damaged = CLOSED, 0, 0, 0, nil
  self.forget()
  self.read = self.read + 1
end

-- Whether there is a file to read; one that is not there is an empty one.
local function opened(self)
  if self.fd ~= CLOSED then return true end
  local fd, number = posix.open_to_read(self.path)
  if fd >= 0 then
    self.fd = fd
    return true
  end
  if number ~= posix.MISSING then self:fail("opened", posix.message(number)) end
  return false
end

-- Every whole line of the text, which begins at self.offset, is taken; how many bytes they are.
local function take_lines(self, text)
  local at = 1
  while true do
    local close = text:find("\n", at, true)
    if not close then return at - 1 end
    self.lines = self.lines + 1
    local event, why = json.decode(text:sub(at, close - 1))
    if event then event, why = pcall(self.take, event, self.offset + at - 1, close - at) end
    if not event then self:fail("read in line " .. self.lines, tostring(why)) end
    at = close + 1
  end
end

local function read_on(self, size)
  self.known = size
  local text, number = posix.read_at(self.fd, self.offset, size - self.offset)
  if not text then self:fail("read", posix.message(number)) end
  self.offset = self.offset + take_lines(self, text)
  self.read = self.read + 1
end

-- A line that was taken, read again.
function Journal:event(offset, length)
  local line, number = posix.read_at(self.fd, offset, length)
  if not line then self:fail("read", posix.message(number)) end
  return assert(json.decode(line))
end

-- Takes what was appended since the last call. Throws where the journal cannot be relied upon.
function Journal:catch_up()
  if not opened(self) then return end
  local size, links = posix.size_and_links(self.fd)
  if not size then self:fail("looked at", posix.message(links)) end
  if links == 0 or size < self.known then
    start_anew(self)
    return self:catch_up()
  end
  if size > self.known then
    if self.damaged then start_anew(self) return self:catch_up() end
    read_on(self, size)
  elseif self.damaged then
    error(self.damaged, 0)
  end
end

return journals
