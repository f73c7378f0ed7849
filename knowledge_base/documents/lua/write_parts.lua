-- Writes some parts of a revision that a document is to be switched to. Nobody finds them until it is.
--
-- KEYS[1]  the sorted set of revisions that are being written
-- ARGV[1]  request: root, now, number, member (names the revision there), until_ms (when it counts as given up),
--          document_id, document (the label of its parts), revision, base (the revision that vectors are taken from,
--          "" for none), created_at, updated_at, seq, labels, passages: a list of {position, text, path, first page,
--          last page, position of the same text in the base or -1, place of its vector in ARGV or -1},
--          sections: a list of {position, stems}
-- ARGV     from the second on: vectors
-- Reply    {"written", how many passages have their vectors} | {"lost"} when the revision counts as given up

if not redis.call('ZSCORE', KEYS[1], request.member) then return {'lost'} end
redis.call('ZADD', KEYS[1], request.until_ms, request.member)

local id, revision = request.document_id, request.revision
local fields = { document = request.document, created_at = request.created_at, updated_at = request.updated_at }

local function vector_of(passage)
  if passage[7] >= 0 then return ARGV[passage[7]] end
  if passage[6] >= 0 and given(request.base) then
    return redis.call('HGET', passage_key(id, request.base, string.format('%d', passage[6])), 'vector')
  end
  return false
end

local vectors = 0
for _, passage in ipairs(request.passages) do
  local position = string.format('%d', passage[1])
  local key = passage_key(id, revision, position)
  local vector = vector_of(passage)
  local place = { 'text', passage[2], 'section_path', passage[3], 'page_start', passage[4], 'page_end', passage[5] }
  if vector then
    vectors = vectors + 1
    write_hash(key, id, fields, 'id', id .. ':' .. revision .. ':' .. position, 'vector', vector, unpack(place))
  else
    write_hash(key, id, fields, unpack(place))
  end
end
for _, section in ipairs(request.sections) do
  -- Without a position: what lists facts asks for that of their first section.
  write_hash(section_key(id, revision, string.format('%d', section[1])), id, fields,
    'stem', section[2], 'seq', request.seq)
  count_language(section[2])
end
return {'written', vectors}
