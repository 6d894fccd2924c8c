-- Taking holds off: what happens to held money when a hold is settled, released, replaced or expires: core/holding.py.
-- needs: applying, rolling

local holding = {}

function holding.hold_on_legs(hold, amounts, sign)
    for _, leg in ipairs(hold.legs) do
        local account = work.leg(hold, leg)
        if account then
            account.held = numbers.add(account.held, sign * amounts[UNITS[leg[4]]])
            if account.dropped and account.held == 0 then
                work.drop(account)
            else
                work.stage(account)
            end
        end
    end
end

-- Stages an open hold and puts its money on what is held.
function holding.put_on(hold)
    work.put_hold(hold)
    holding.hold_on_legs(hold, hold.amounts, 1)
end

-- Takes an open hold's money off what is held. The caller stages the hold's new state.
function holding.take_off(hold)
    holding.hold_on_legs(hold, hold.amounts, -1)
end

-- Expires a few due holds in passing.
function holding.expire_few(spare)
    local ids = work.due(DUE_BATCH)
    return #ids > 0 and holding.expire_all(ids, spare) or 0
end

