--- Pure functions of text: columns in an encoding, pieces of a suggestion, what of it has been typed.
--- Knows no buffer, no window and no server.

local M = {}

local HAS_STRICT_INDEX = vim.fn.has('nvim-0.11') == 1 -- the functions took their arguments in another order before
local CLOSERS = '^[%)%]}>\'"`,;]*$'

---@param line string
---@param column integer in units of the encoding
---@param encoding string "utf-8", "utf-16" or "utf-32"
---@return integer byte from 0; the line's length where the column lies beyond its end
function M.byte_of(line, column, encoding)
  if encoding == 'utf-8' then
    return math.min(column, #line)
  end
  if HAS_STRICT_INDEX then
    return vim.str_byteindex(line, encoding, column, false)
  end
  local ok, byte = pcall(vim.str_byteindex, line, column, encoding == 'utf-16')
  return ok and byte or #line
end

---@param line string
---@param byte integer
---@param encoding string
---@return integer column in units of the encoding
function M.column_of(line, byte, encoding)
  if encoding == 'utf-8' then
    return byte
  end
  if HAS_STRICT_INDEX then
    return vim.str_utfindex(line, encoding, byte, false)
  end
  local utf32, utf16 = vim.str_utfindex(line, byte)
  return encoding == 'utf-16' and utf16 or utf32
end

---@param text string
---@return integer length in UTF-16 units, as LSP counts an accepted length
function M.utf16_length(text)
  return M.column_of(text, #text, 'utf-16')
end

--- The first word of a text, with the white space before it: letters and digits, or a run of other signs.
---@param text string
---@return string
function M.first_word(text)
  local space = text:match('^%s*')
  local rest = text:sub(#space + 1)
  local word = rest:match('^[%w_\128-\255]+') or rest:match('^[^%w_\128-\255%s]+') or ''
  return space .. word
end

--- Up to the end of the line. Where nothing is left of this one: the line break and the next one.
---@param text string
---@return string
function M.first_line(text)
  return text:match('^\n*[^\n]*')
end

--- Whether all characters of `few` stand in `many`, in this order.
---@param few string
---@param many string
---@return integer[]? where each of them stands in `many` (byte, from 1)
function M.places_in(few, many)
  -- From the end, so that a closer is matched with the last of its kind.
  local places, last = {}, #many
  for i = #few, 1, -1 do
    local character = few:sub(i, i)
    while last > 0 and many:sub(last, last) ~= character do
      last = last - 1
    end
    if last == 0 then
      return nil
    end
    places[i] = last
    last = last - 1
  end
  return places
end

--- What still stands right of the cursor of the text that the suggestion replaces, and is repeated in it.
---
--- An editor that pairs brackets adds closers while the user types, and lets closers be typed over. Both agree with a
--- suggestion as long as what it will replace is closers that its own text brings again.
---@param right string right of the cursor, on its line
---@param after string what has to stay on that line
---@param tail string what was to be replaced when the suggestion came
---@param rest string of the suggestion
---@return string? tail nil: the line was changed in some other way
function M.tail_of(right, after, tail, rest)
  if right:sub(#right - #after + 1) ~= after or #right < #after then
    return nil
  end
  local left = right:sub(1, #right - #after)
  if vim.endswith(tail, left) then
    return left
  end
  local is_paired = vim.endswith(left, tail) and left:match(CLOSERS) and M.places_in(left, rest)
  return is_paired and left or nil
end

--- A chunk of a suggestion that is about to be inserted: how much of the tail goes with it.
---@param tail string
---@param rest string what is left of the suggestion after the chunk
---@return integer n_bytes of the tail's beginning that the rest does not bring again
function M.tail_used(tail, rest)
  local used = 0
  while used < #tail and not M.places_in(tail:sub(used + 1), rest) do
    used = used + 1
  end
  return used
end

--- Text as it can be drawn: tabs as wide as they will be, other control characters readable.
---@param text string one line
---@param column integer where on the screen line it begins, in cells
---@return string
function M.drawable(text, column)
  if not text:find('[%c\127]') then
    return text
  end
  local parts = {}
  for plain, control in text:gmatch('([^%c\127]*)([%c\127]?)') do
    parts[#parts + 1] = plain
    column = column + vim.fn.strdisplaywidth(plain, column)
    local drawn = control
    if control == '\t' then
      drawn = (' '):rep(vim.fn.strdisplaywidth('\t', column))
    elseif control ~= '' then
      drawn = vim.fn.strtrans(control)
    end
    parts[#parts + 1] = drawn
    column = column + #drawn
  end
  return table.concat(parts)
end

--- One line in pieces that fit a window, since Neovim cuts virtual lines off instead of wrapping them.
---@param text string drawable
---@param width integer in cells, at least 1
---@return string[]
function M.wrapped(text, width)
  if vim.fn.strdisplaywidth(text) <= width then
    return { text }
  end
  local pieces, piece, cells = {}, {}, 0
  for _, character in ipairs(vim.fn.split(text, '\\zs')) do
    local wide = vim.fn.strdisplaywidth(character)
    if cells + wide > width and #piece > 0 then
      pieces[#pieces + 1] = table.concat(piece)
      piece, cells = {}, 0
    end
    piece[#piece + 1] = character
    cells = cells + wide
  end
  pieces[#pieces + 1] = table.concat(piece)
  return pieces
end

--- A line without its first cells, as a window shows it that is scrolled sideways.
---@param text string drawable
---@param n_cells integer
---@return string
function M.scrolled(text, n_cells)
  if n_cells == 0 then
    return text
  end
  local cells, parts = 0, {}
  for _, character in ipairs(vim.fn.split(text, '\\zs')) do
    local wide = vim.fn.strdisplaywidth(character)
    if cells >= n_cells then
      parts[#parts + 1] = character
    elseif cells + wide > n_cells then
      parts[#parts + 1] = (' '):rep(cells + wide - n_cells) -- half of a wide character
    end
    cells = cells + wide
  end
  return table.concat(parts)
end

return M
