-- Exact integers. A number of Lua is a double: whole numbers are exact below 2^53. An amount or a time is always below;
-- a sum may not be, and is then kept as a string of decimal digits. So a sum is a number or a string, never both for one
-- value, and goes through these functions. tonumber(sum) is near enough wherever only the order of magnitude counts.

local numbers = {}

function numbers.add(one, other)
    if type(one) == 'number' and type(other) == 'number' then
        local sum = one + other
        if sum > -9e15 and sum < 9e15 then
            return sum
        end
    end
    local high, low = numbers.halves(one)
    local more_high, more_low = numbers.halves(other)
    return numbers.joined(high + more_high, low + more_low)
end

function numbers.minus(sum)
    if type(sum) == 'number' then
        return -sum
    end
    return string.sub(sum, 1, 1) == '-' and string.sub(sum, 2) or '-' .. sum
end

function numbers.sub(one, other)
    return numbers.add(one, numbers.minus(other))
end
