-- The rows of one project, and the work of one command on them: nothing is written before work.save().
-- needs: numbers
--
-- KEYS[1], the project's root, begins every key (so that all of them share a hash slot):
--   :a     hash    subject -> its accounts              :h     hash    id -> open hold, or mark with something to say
--   :s     zset    subjects with accounts, by name      :c     zset    marks by the time of closing
--   :t     zset    subjects with totals, by name        :o     zset    open holds by their time limit
--   :d     zset    subjects by their oldest day
--   :u:SUBJECT  hash  day:model -> {spent, calls, input tokens, output tokens, refusals, unsettled}
-- A subject is written LENGTH:scope:id, LENGTH being that of the scope. Values are MessagePack. A mark that has nothing
-- to say (see `plain`) is its entry in :c and nothing else.

local ROOT, DAY, DUE_BATCH = KEYS[1], 86400000000, 4
local ROUND = 500       -- how many due holds one run of a script takes on at most
local UNITS = {usd = 1, calls = 2, tokens = 3}
local call = redis.call
local work = {subjects = {}, holds = {}, recorded = {}, changed = {}, totals = {}, rows_made = 0}

-- Begins the work: `now` is a test's clock, 0 for the server's.
function work.begin(now)
    if now == 0 then
        local time = call('TIME')
        now = time[1] * 1000000 + time[2]
    end
    work.now = now
    work.day = math.floor(now / DAY)
end

function work.name(scope, id)
    return #scope .. ':' .. scope .. ':' .. id
end

function work.account_of(subject, r)
    return {
        subject = subject, model = r[1], window = r[2], unit = r[3], id = r[4], created_at = r[5], start = r[6],
        stop = r[7], pinned = r[8], limit = r[9], spent = r[10], held = r[11], epoch = r[12], models = r[13],
        blocked = r[14] or false, raised_by = r[15] or 0, raised_until = r[16] or 0, carry_over = r[17] or 0,
        carried = r[18] or 0, dropped = r[19] or false, was_dropped = r[19] or false, alerted = r[20] or 0,
        alert_limit = r[21] or 0,
    }
end

local function row_of(a)
    -- A window that was opened again in passing is not written unless the command stages the account.
    local dropped = a.was_dropped
    if a.staged then
        dropped = a.dropped
    end
    local row = {a.model, a.window, a.unit, a.id, a.created_at, a.start, a.stop, a.pinned, a.limit, a.spent, a.held,
        a.epoch, a.models}
    if a.blocked or dropped or a.raised_by ~= 0 or a.raised_until ~= 0 or a.carry_over ~= 0 or a.carried ~= 0
        or a.alerted ~= 0 or a.alert_limit ~= 0 then
        row[14], row[15], row[16], row[17], row[18] = a.blocked, a.raised_by, a.raised_until, a.carry_over, a.carried
        row[19], row[20], row[21] = dropped, a.alerted, a.alert_limit
    end
    return row
end

local function loaded(scope, id, name, packed)
    local subject = {scope = scope, id = id, name = name, accounts = {}, known = packed and true or false}
    if packed then
        for place, row in ipairs(cmsgpack.unpack(packed)) do
            subject.accounts[place] = work.account_of(subject, row)
        end
    end
    work.subjects[name] = subject
    return subject
end

-- A subject with its accounts.
function work.subject(scope, id)
    local name = work.name(scope, id)
    return work.subjects[name] or loaded(scope, id, name, call('HGET', ROOT .. ':a', name))
end

-- An account of a subject, nil if there is none.
function work.account(subject, model, window, unit)
    for _, account in ipairs(subject.accounts) do
        if account.model == model and account.window == window and account.unit == unit then
            return account
        end
    end
end

-- The account that a leg of a hold names.
function work.leg(hold, leg)
    local subject = hold.subjects[leg[1]]
    return work.account(work.subject(subject[1], subject[2]), leg[2], leg[3], leg[4])
end

function work.stage(account)
    account.staged = true
    account.subject.changed = true
end

-- A new account. `command` is the kind and id of what makes it.
function work.make(subject, model, window, unit, command, start, stop)
    work.rows_made = work.rows_made + 1
    local account = work.account_of(subject, {model, window, unit, command .. ':' .. work.rows_made, work.now, start, stop,
        false, false, 0, 0, 0, {}})
    table.insert(subject.accounts, account)
    work.stage(account)
    return account
end

local NOTHING = {0, 0, 0}

-- A hold or mark. What is left out of `fields` is empty.
function work.new_hold(id, state, at, fields)
    local hold = fields or {}
    hold.id, hold.state, hold.at = id, state, at
    hold.reply, hold.model, hold.day = hold.reply or false, hold.model or '', hold.day or 0
    hold.amounts, hold.floor = hold.amounts or NOTHING, hold.floor or NOTHING
    hold.subjects, hold.legs, hold.charged = hold.subjects or {}, hold.legs or {}, hold.charged or {}
    return hold
end

-- The state of a mark that is told by its id alone.
local function plain(id)
    if string.sub(id, 1, 6) == 'alias:' then
        return 'alias'
    end
    return string.sub(id, 1, 8) == 'command:' and 'done' or 'settled'
end

-- The places of `false` and the first NOTHING belonged to holds inside a hold: scripts of earlier versions still read them.
local function hold_row(h)
    if h.state == 'open' or h.state == 'expired' or h.model ~= '' or #h.subjects > 0 then
        return {h.state, h.at, h.reply, false, h.model, h.day, h.amounts, NOTHING, h.floor, h.subjects, h.legs, h.charged}
    elseif h.reply then
        return {h.state, h.at, h.reply}
    elseif h.state ~= plain(h.id) then
        return {h.state, h.at}
    end
end

function work.remember(id, packed)
    local hold = false
    if packed then
        local r = cmsgpack.unpack(packed)
        hold = work.new_hold(id, r[1], r[2], {reply = r[3], model = r[5], day = r[6], amounts = r[7],
            floor = r[9], subjects = r[10], legs = r[11], charged = r[12]})
    else
        local at = call('ZSCORE', ROOT .. ':c', id)
        hold = at and work.new_hold(id, plain(id), tonumber(at))
    end
    work.holds[id] = hold
    work.recorded[id] = hold and {open = hold.state == 'open', at = hold.at, row = packed and true}
    return hold
end

-- A hold or mark as this command sees it, false if there is none.
function work.hold(id)
    local hold = work.holds[id]
    if hold ~= nil then
        return hold
    end
    return work.remember(id, call('HGET', ROOT .. ':h', id))
end

function work.put_hold(hold)
    work.hold(hold.id)
    work.holds[hold.id] = hold
    work.changed[hold.id] = hold
end

-- The ids of up to `most` open holds whose time limit has come, in the order of (limit, id); some may be closed by now.
function work.due(most)
    local ids = call('ZRANGEBYSCORE', ROOT .. ':o', '-inf', work.now, 'LIMIT', 0, most)
    return #ids > 0 and work.all_loaded(ids) or ids
end

-- Every first write of a command is one that a server without memory refuses: so it is refused as a whole.
local function save_holds(gone)
    local rows, opened, closed = {'HSET', ROOT .. ':h'}, {'ZADD', ROOT .. ':o'}, {'ZADD', ROOT .. ':c'}
    for id, hold in pairs(work.changed) do
        local recorded, open = work.recorded[id], hold.state == 'open'
        local row = hold_row(hold)
        if row then
            rows[#rows + 1], rows[#rows + 2] = id, cmsgpack.pack(row)
        elseif recorded and recorded.row then
            gone[#gone + 1] = {'HDEL', ROOT .. ':h', id}
        end
        if not open then
            closed[#closed + 1], closed[#closed + 2] = hold.at, id
            if recorded and recorded.open then
                gone[#gone + 1] = {'ZREM', ROOT .. ':o', id}
            end
        elseif not recorded or recorded.at ~= hold.at then
            opened[#opened + 1], opened[#opened + 2] = hold.at, id
        end
    end
    for _, command in ipairs({rows, opened, closed}) do
        for first = 3, #command, 2000 do
            call(command[1], command[2], unpack(command, first, math.min(#command, first + 1999)))
        end
    end
end

local function save_accounts(gone)
    for name, subject in pairs(work.subjects) do
        if subject.changed and #subject.accounts > 0 then
            local rows = {}
            for place, account in ipairs(subject.accounts) do
                rows[place] = row_of(account)
            end
            call('HSET', ROOT .. ':a', name, cmsgpack.pack(rows))
            if not subject.known then
                call('ZADD', ROOT .. ':s', 0, name)
            end
        elseif subject.changed and subject.known then
            gone[#gone + 1] = {'HDEL', ROOT .. ':a', name}
            gone[#gone + 1] = {'ZREM', ROOT .. ':s', name}
        end
    end
end

-- Writes what was staged.
function work.save()
    local gone = {}
    save_holds(gone)
    save_accounts(gone)
    if next(work.totals) then
        work.save_totals()
    end
    for _, command in ipairs(gone) do
        call(unpack(command))
    end
end
