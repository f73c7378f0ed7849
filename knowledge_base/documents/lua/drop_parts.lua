-- Removes some parts of a revision that is not its document's, and its text with the last of them.
--
-- KEYS[1]  the document's key
-- KEYS[2]  the hash of its blocks
-- ARGV     root, generation that the parts are of, document id, revision, first position, position after the last,
--          passages, sections
-- Reply    how many were there; -1 when the revision is the document's

local LONGEST_MARK = 32

local root, number, id, revision = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local live = redis.call('HGET', root .. 'generation', 'number')
local is_current = redis.call('HGET', KEYS[1], 'revision') == revision
if is_current and (not live or live == number) then return -1 end

local numbers = { number }
local next_number = redis.call('HGET', root .. 'rebuild', 'number')
if next_number and next_number ~= number and not is_current then numbers[2] = next_number end

-- What another generation has is counted no more: the rebuild that replaced it has counted its own.
local function uncount_section(key)
  local stem = (not live or live == number) and redis.call('HGET', key, 'stem')
  if not stem then return end
  local language = string.match(string.sub(stem, -LONGEST_MARK), '_(%l+)$') or 'english'
  local languages = root .. 'languages'
  if redis.call('HEXISTS', languages, language) == 0 then return end
  if redis.call('HINCRBY', languages, language, -1) <= 0 then redis.call('HDEL', languages, language) end
end

local removed = 0
for position = tonumber(ARGV[5]), tonumber(ARGV[6]) - 1 do
  local name = ':' .. id .. ':' .. revision .. ':' .. string.format('%d', position)
  if position < tonumber(ARGV[8]) then uncount_section(root .. 'section:' .. number .. name) end
  for _, generation in ipairs(numbers) do
    removed = removed + redis.call('DEL', root .. 'passage:' .. generation .. name)
    if position < tonumber(ARGV[8]) then
      removed = removed + redis.call('DEL', root .. 'section:' .. generation .. name)
    end
  end
end
if tonumber(ARGV[6]) >= tonumber(ARGV[7]) and not is_current then
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    if string.sub(field, 1, #revision + 1) == revision .. ':' then
      removed = removed + redis.call('HDEL', KEYS[2], field)
    end
  end
end
return removed
