-- The few calls of the operating system that the filter needs: files, clocks, random bytes.
-- Linux only (statx). Every caller looks at what is returned; nothing here throws but `random_bytes`.
local ffi = require("ffi")

ffi.cdef [[
int open(const char *path, int flags, ...);
int close(int fd);
ssize_t pread(int fd, void *buffer, size_t count, int64_t offset);
ssize_t read(int fd, void *buffer, size_t count);
ssize_t write(int fd, const void *buffer, size_t count);
int ftruncate(int fd, int64_t length);
int fallocate(int fd, int mode, int64_t offset, int64_t length);
int64_t lseek(int fd, int64_t offset, int whence);
int mkdir(const char *path, unsigned int mode);
int flock(int fd, int operation);
struct llma_dirent { uint64_t inode; int64_t offset; uint16_t length; uint8_t kind; char name[256]; };
void *opendir(const char *path);
struct llma_dirent *readdir(void *folder);
int closedir(void *folder);
char *strerror(int number);
struct llma_timespec { long seconds; long nanoseconds; };
int clock_gettime(int clock, struct llma_timespec *at);
struct llma_statx {
  uint32_t mask, block_size; uint64_t attributes;
  uint32_t links, uid, gid; uint16_t mode, spare;
  uint64_t inode, size;
  uint8_t rest[208];
};
int statx(int folder, const char *path, int flags, unsigned int mask, struct llma_statx *found);
]]

local C = ffi.C
local READ_AND_WRITE = 0x2
local READ, APPEND_NEW, CLOSE_ON_EXEC = 0, 0x1 + 0x40 + 0x400, 0x80000 -- O_WRONLY, O_CREAT, O_APPEND
local OWNER_ONLY, OWNER_FOLDER = tonumber("600", 8), tonumber("700", 8)
local REAL_TIME, MONOTONIC = 0, 1
local OF_THE_DESCRIPTOR, BASIC = 0x1000, 0x7ff -- AT_EMPTY_PATH, STATX_BASIC_STATS
local INTERRUPTED = 4
local PUNCH_HOLE = 0x2 + 0x1 -- FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE
local TO_DATA = 3 -- SEEK_DATA
local ALONE_OR_NOT_AT_ALL = 2 + 4 -- LOCK_EX, LOCK_NB

local posix = { MISSING = 2, EXISTS = 17 } -- ENOENT, EEXIST
local at = ffi.new("struct llma_timespec")
local found = ffi.new("struct llma_statx")

local function seconds(clock)
  C.clock_gettime(clock, at)
  return tonumber(at.seconds) + tonumber(at.nanoseconds) * 1e-9
end

-- Seconds since 1970, for records.
function posix.now() return seconds(REAL_TIME) end

-- Seconds that only ever grow, for limits and durations.
function posix.monotonic() return seconds(MONOTONIC) end

function posix.errno() return ffi.errno() end

function posix.message(number) return ffi.string(C.strerror(number)) end

-- A descriptor, or -1 and errno.
function posix.open_to_read(path)
  local fd = C.open(path, READ + CLOSE_ON_EXEC)
  return fd, fd < 0 and ffi.errno() or nil
end

function posix.open_to_change(path)
  local fd = C.open(path, READ_AND_WRITE + CLOSE_ON_EXEC)
  return fd, fd < 0 and ffi.errno() or nil
end

function posix.open_to_append(path)
  local fd = C.open(path, APPEND_NEW + CLOSE_ON_EXEC, ffi.cast("unsigned int", OWNER_ONLY))
  return fd, fd < 0 and ffi.errno() or nil
end

function posix.close(fd) C.close(fd) end

function posix.make_folder(path)
  if C.mkdir(path, OWNER_FOLDER) == 0 then return true end
  return ffi.errno() == posix.EXISTS, ffi.errno()
end

-- The names in a folder; none where there is no such folder.
function posix.names(path)
  local folder, names = C.opendir(path), {}
  if folder == nil then return names end
  local entry = C.readdir(folder)
  while entry ~= nil do
    names[#names + 1] = ffi.string(entry.name)
    entry = C.readdir(folder)
  end
  C.closedir(folder)
  return names
end

-- Locks an open file for as long as it is open, so as this process lives; nil and errno.
function posix.lock(fd)
  if C.flock(fd, ALONE_OR_NOT_AT_ALL) == 0 then return true end
  return nil, ffi.errno()
end

-- Size and number of names of an open file (none: it was replaced or removed); nil and errno.
function posix.size_and_links(fd)
  if C.statx(fd, "", OF_THE_DESCRIPTOR, BASIC, found) ~= 0 then return nil, ffi.errno() end
  return tonumber(found.size), found.links
end

-- The bytes from `offset` on, `count` or as many as there are; nil and errno.
function posix.read_at(fd, offset, count)
  local buffer, filled = ffi.new("uint8_t[?]", count), 0
  while filled < count do
    local got = tonumber(C.pread(fd, buffer + filled, count - filled, offset + filled))
    if got == 0 then break end
    if got > 0 then
      filled = filled + got
    elseif ffi.errno() ~= INTERRUPTED then
      return nil, ffi.errno()
    end
  end
  return ffi.string(buffer, filled)
end

-- How many of the bytes were written, and errno if that is not all of them.
function posix.write(fd, text)
  local bytes, total, written = ffi.cast("const uint8_t *", text), #text, 0
  while written < total do
    local count = tonumber(C.write(fd, bytes + written, total - written))
    if count > 0 then
      written = written + count
    elseif count == 0 or ffi.errno() ~= INTERRUPTED then
      return written, ffi.errno()
    end
  end
  return written
end

function posix.truncate(fd, size) return C.ftruncate(fd, size) == 0 end

-- Gives the first bytes of a file back to the disk; they read as zeros from then on. Whether the file system can do that.
function posix.drop(fd, count) return C.fallocate(fd, PUNCH_HOLE, 0, count) == 0 end

-- Where the first bytes are that were not given back; nil: there are none.
function posix.first_kept(fd)
  local offset = tonumber(C.lseek(fd, 0, TO_DATA))
  return offset >= 0 and offset or nil
end

function posix.random_bytes(buffer, count)
  local fd = C.open("/dev/urandom", READ + CLOSE_ON_EXEC)
  if fd < 0 then error("/dev/urandom cannot be opened: " .. posix.message(ffi.errno())) end
  local got = tonumber(C.read(fd, buffer, count))
  C.close(fd)
  if got ~= count then error("/dev/urandom gave too few bytes") end
end

return posix
