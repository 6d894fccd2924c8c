-- Returns some rows of version 1 that are not upgraded yet, decoded from MessagePack.
--
-- ARGV[1]  {hash, how many}; the hash is :1a (accounts) or :1h (holds)
-- Answer   {{subject, {account, ...}} or {id, hold}, ...}

local hash, most = unpack(args)

-- Fills the gaps of a row with false: a returned table ends at its first nil.
local function whole(row, places)
    for place = 1, places do
        row[place] = row[place] or false
    end
    return row
end

local function whole_account(account)
    local models = {}
    for model, amount in pairs(account[13]) do
        models[#models + 1], models[#models + 2] = model, amount
    end
    account[13] = models
    return whole(account, 21)
end

-- Any rows will do: a cursor would scan the slots of all deleted rows.
local found, reply = call('HRANDFIELD', ROOT .. hash, most, 'WITHVALUES'), {}
for at = 1, #found, 2 do
    local row = cmsgpack.unpack(found[at + 1])
    if hash == ':1a' then
        for _, account in ipairs(row) do
            whole_account(account)
        end
    else
        whole(row, 12)
    end
    reply[#reply + 1] = {found[at], row}
end
return reply
