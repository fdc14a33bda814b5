--- Puts a suggestion, or its beginning, into the buffer: one block of undo, dot-repeatable, the cursor behind it.

local engine = require('codestral.engine')
local suggestions = require('codestral.suggestion')
local text = require('codestral.text')

local M = {}

--- What is typed before and after is undone by itself. (:help undo-break)
local function break_undo()
  vim.bo.undolevels = vim.bo.undolevels
end

---@param suggestion codestral.Suggestion
---@param cursor integer[]
---@param chunk string
local function insert(suggestion, cursor, chunk)
  local rest = suggestions.rest(suggestion):sub(#chunk + 1)
  local n_replaced = rest == '' and #suggestion.tail or text.tail_used(suggestion.tail, rest)
  break_undo()
  if n_replaced > 0 then
    vim.api.nvim_buf_set_text(suggestion.bufnr, cursor[1], cursor[2], cursor[1], cursor[2] + n_replaced, {})
  end
  vim.api.nvim_paste(chunk, false, -1) -- unlike nvim_buf_set_text it can be repeated with a dot
  break_undo()
end

---@param cut fun(rest: string): string the part that is wanted
---@return boolean accepted false where nothing is shown
local function accept(cut)
  local suggestion = engine.current()
  if not suggestion or not engine.is_visible() then
    return false
  end
  local function apply()
    engine.accept(function(shown, cursor)
      insert(shown, cursor, cut(suggestions.rest(shown)))
    end)
  end
  local ok, problem = pcall(apply)
  if not ok and tostring(problem):find('E565') then -- in an <expr> mapping the text is locked
    vim.schedule(function()
      if engine.current() == suggestion then
        apply()
      end
    end)
  elseif not ok then
    error(problem, 0)
  end
  return true
end

---@return boolean
function M.all()
  return accept(function(rest)
    return rest
  end)
end

---@return boolean
function M.word()
  return accept(text.first_word)
end

---@return boolean
function M.line()
  return accept(text.first_line)
end

return M
