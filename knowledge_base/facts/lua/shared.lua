-- Functions that the scripts of facts share.
--
-- A request is one JSON object in ARGV[1]. KEYS[1] is the key of the fact; the other keys are built from
-- request.root ("kb:{namespace}:"), so all of them live on the shard of that hash tag. request.number is the
-- generation that the caller takes for the live one; each script replies {"moved"} when it is not.

local LATEST_INSERT_MS = 60000
local LONGEST_MARK = 32

local request = cjson.decode(ARGV[1])
local root = request.root

-- Whoever believes in a generation that is live no longer must look again.
local live_generation = redis.call('HGET', root .. 'generation', 'number')
if live_generation and live_generation ~= request.number then return {'moved'} end
local next_generation = redis.call('HGET', root .. 'rebuild', 'number')

local function given(value)
  return value ~= nil and value ~= cjson.null and value ~= false and value ~= ''
end

local function read_fact(fact_id)
  local flat = redis.call('HGETALL', root .. 'fact:' .. fact_id)
  if #flat == 0 then return nil end
  local fact = {}
  for i = 1, #flat, 2 do fact[flat[i]] = flat[i + 1] end
  return fact
end

local function is_expired(fact)
  return given(fact.expires_at) and tonumber(fact.expires_at) <= tonumber(request.now)
end

-- A fact without principals is listed under "*"; callers bring "*" among theirs.
local function is_visible(fact, callers)
  local own = cjson.decode(fact.principals)
  if #own == 0 then return true end
  for _, principal in ipairs(own) do
    for _, caller in ipairs(callers) do
      if principal == caller then return true end
    end
  end
  return false
end

local function list_among_visible(fact_id, seq, principals_json, shown)
  local principals = cjson.decode(principals_json)
  if #principals == 0 then principals = {'*'} end
  for _, principal in ipairs(principals) do
    if shown then
      redis.call('ZADD', root .. 'visible:' .. principal, seq, fact_id)
    else
      redis.call('ZREM', root .. 'visible:' .. principal, fact_id)
    end
  end
end

local function count_one(key, label, by)
  if redis.call('HINCRBY', key, label, by) <= 0 then redis.call('HDEL', key, label) end
end

local function count_labels(tags_json, source, by)
  for _, tag in ipairs(cjson.decode(tags_json)) do count_one(root .. 'tag_counts', tag, by) end
  if given(source) then count_one(root .. 'source_counts', source, by) end
end

-- A rebuild that is under way copies once more whatever is noted here.
local function note_change(fact_id)
  if next_generation then
    redis.call('ZADD', root .. 'changed', redis.call('HINCRBY', root .. 'rebuild', 'changes', 1), fact_id)
  end
end

local function part_key(kind, number, fact_id, revision, position)
  return root .. kind .. ':' .. number .. ':' .. fact_id .. ':' .. revision .. ':' .. position
end

local function passage_key(fact_id, revision, position)
  return part_key('passage', request.number, fact_id, revision, position)
end

local function section_key(fact_id, revision, position)
  return part_key('section', request.number, fact_id, revision, position)
end

local function part_keys_in(number, fact_id, fact)
  local keys = {}
  for position = 0, tonumber(fact.passages) - 1 do
    keys[#keys + 1] = part_key('passage', number, fact_id, fact.revision, position)
  end
  for position = 0, tonumber(fact.sections) - 1 do
    keys[#keys + 1] = part_key('section', number, fact_id, fact.revision, position)
  end
  return keys
end

local function part_keys(fact_id, fact)
  return part_keys_in(request.number, fact_id, fact)
end

-- The language of a section stands behind its stems; without, it is English.
local function language_of(stem)
  return string.match(string.sub(stem, -LONGEST_MARK), '_(%l+)$') or 'english'
end

-- Sections from before they were counted are not taken off: no count falls below zero.
local function uncount_language(language)
  if redis.call('HEXISTS', root .. 'languages', language) == 1 then count_one(root .. 'languages', language, -1) end
end

-- Takes the sections of a fact off, from a position on. Those of one that has expired are gone: the fact knows their
-- languages.
local function uncount_sections(fact_id, fact, first)
  local noted = string.gmatch(fact.languages or '', '%l+')
  for position = 0, tonumber(fact.sections) - 1 do
    local language = noted()
    if position >= first then
      local stem = redis.call('HGET', section_key(fact_id, fact.revision, position), 'stem')
      if stem then language = language_of(stem) end
      if language then uncount_language(language) end
    end
  end
end

local function remove_parts(fact_id, fact)
  uncount_sections(fact_id, fact, 0)
  for _, key in ipairs(part_keys(fact_id, fact)) do redis.call('DEL', key) end
  if next_generation then
    for _, key in ipairs(part_keys_in(next_generation, fact_id, fact)) do redis.call('DEL', key) end
  end
  redis.call('HINCRBY', root .. 'counters', 'passages', -tonumber(fact.passages))
end

-- Writes the fields that are filtered on, and others, with one command: the server indexes a hash anew with each, and
-- counts its words once more every time. What has no "principals" is found by nobody.
local function write_hash(key, fact_id, fact, ...)
  local labels = request.labels
  redis.call('HSET', key, 'principals', labels.principals, 'tags', labels.tags, 'source', labels.source,
    'meta', labels.meta, 'fact_id', fact_id, 'document', fact.document,
    'created_at', fact.created_at, 'updated_at', fact.updated_at, ...)
  if given(fact.expires_at) then
    redis.call('PEXPIREAT', key, fact.expires_at)
  end
end

-- Counts the language of a section that is written, in place of that of the one that was there before.
local function count_language(stem, before)
  local languages, language = root .. 'languages', language_of(stem)
  if before then
    if language_of(before) == language then return end
    uncount_language(language_of(before))
  end
  if redis.call('HINCRBY', languages, language, 1) > 1 or redis.call('HLEN', languages) > 1 then return end
  -- The first one that is counted is not the first one where sections were written before they were counted.
  local passages = tonumber(redis.call('HGET', root .. 'counters', 'passages') or '0')
  if passages > 0 then redis.call('HINCRBY', languages, 'english', passages) end
end

-- The server removes the sections of a fact that expires, so that nobody could tell what to take off.
local function note_languages(fact_id, fact)
  if not given(fact.expires_at) then return end
  local noted = {}
  for position, stem in ipairs(request.sections) do noted[position] = language_of(stem) end
  redis.call('HSET', root .. 'fact:' .. fact_id, 'languages', table.concat(noted, ' '))
end

local function write_parts(fact_id, fact)
  for position, text in ipairs(request.passages) do
    write_hash(passage_key(fact_id, fact.revision, position - 1), fact_id, fact, 'text', text)
  end
  for position, stem in ipairs(request.sections) do
    write_hash(section_key(fact_id, fact.revision, position - 1), fact_id, fact,
      'stem', stem, 'position', position - 1, 'seq', fact.seq)
    count_language(stem)
  end
  note_languages(fact_id, fact)
  redis.call('HINCRBY', root .. 'counters', 'passages', #request.passages)
end

local function relabel_parts(fact_id, fact)
  for _, key in ipairs(part_keys(fact_id, fact)) do
    if redis.call('EXISTS', key) == 1 then write_hash(key, fact_id, fact) end
  end
end

-- Vectors that are on their way to a revision which is its fact's no longer are removed when they must have come.
local function expect_late_vectors(fact_id, fact)
  redis.call('ZADD', root .. 'inserts', 'XX', tonumber(request.now) + LATEST_INSERT_MS, fact_id .. ':' .. fact.revision)
end

local function forget_attempts(fact_id)
  redis.call('HDEL', root .. 'attempts', fact_id)
  redis.call('HDEL', root .. 'parked', fact_id)
end

local function remove_fact(fact_id, fact)
  -- First of all a command that takes no memory: after it a server that has none left lets the others pass.
  redis.call('ZREM', root .. 'facts', fact_id)
  note_change(fact_id)
  expect_late_vectors(fact_id, fact)
  forget_attempts(fact_id)
  remove_parts(fact_id, fact)
  list_among_visible(fact_id, fact.seq, fact.principals, false)
  count_labels(fact.tags, fact.source, -1)
  if redis.call('HGET', root .. 'contents', fact.digest) == fact_id then
    redis.call('HDEL', root .. 'contents', fact.digest)
  end
  redis.call('ZREM', root .. 'pending', fact_id)
  redis.call('ZREM', root .. 'expiring', fact_id)
  redis.call('DEL', root .. 'fact:' .. fact_id, root .. 'history:' .. fact_id)
end

-- Reads a fact; one that has expired is removed and counts as missing.
local function read_live_fact(fact_id)
  local fact = read_fact(fact_id)
  if fact and is_expired(fact) then
    remove_fact(fact_id, fact)
    return nil
  end
  return fact
end
