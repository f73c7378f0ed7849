-- Reads hashes of several kinds, each with fields of its own, with one command.
--
-- KEYS     the hashes, kind after kind
-- ARGV[1]  bytes after which the reply ends
-- ARGV[2…] for each kind: the number of its hashes, the number of its fields, and the fields
-- Reply    for each hash, the values of its fields in their order; the last ones may be left out

local most, size = tonumber(ARGV[1]), 0
local rows = {}
local at, key = 2, 0
while at < #ARGV do
  local hashes, fields = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  for _ = 1, hashes do
    if size >= most then return rows end
    key = key + 1
    local row = redis.call('HMGET', KEYS[key], unpack(ARGV, at + 2, at + 1 + fields))
    for _, value in ipairs(row) do
      if value then size = size + #value end
    end
    rows[key] = row
  end
  at = at + 2 + fields
end
return rows
