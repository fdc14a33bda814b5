--- Mappings that fall through: where there is nothing to do for a key, it does what it did before.

local config = require('codestral.config')

local M = {}

local DESCRIPTION = 'codestral: '

---@type table<string, table|false> what each key was mapped to before, false for nothing
local before = {}

local function codes(keys)
  return vim.api.nvim_replace_termcodes(keys, true, true, true)
end

--- Neovim keeps some keys in two forms, and 0.10 tells only one of them.
local function is_at(mapping, key)
  local raw = codes(key)
  return mapping.lhsraw == raw or mapping.lhsrawalt == raw or mapping.lhs:lower() == vim.fn.keytrans(raw):lower()
end

---@param key string
---@return table? mapping the global one in insert mode
local function mapping_of(key)
  for _, mapping in ipairs(vim.api.nvim_get_keymap('i')) do
    if is_at(mapping, key) then
      return mapping
    end
  end
end

local function is_ours(mapping)
  return vim.startswith(mapping.desc or '', DESCRIPTION)
end

--- What the key does instead of what it should: in one of the buffers, or everywhere.
---@param key string
---@param bufnrs integer[]
---@return string? owner nil where the key is ours
function M.owner(key, bufnrs)
  for _, bufnr in ipairs(bufnrs) do
    for _, mapping in ipairs(vim.api.nvim_buf_get_keymap(bufnr, 'i')) do
      if is_at(mapping, key) then
        local name = vim.fs.basename(vim.api.nvim_buf_get_name(bufnr))
        return ('%s, in the buffer %s'):format(mapping.desc or mapping.rhs or 'a function', name)
      end
    end
  end
  local mapping = mapping_of(key)
  if mapping and is_ours(mapping) then
    return nil
  end
  return mapping and (mapping.desc or mapping.rhs or 'a function') or 'nothing'
end

local function feed(keys, is_remapped)
  vim.api.nvim_feedkeys(keys, is_remapped and 'im' or 'in', false)
end

--- Does what the key did before. In front of what is typed already, so that the order stays.
---@param key string
local function fall_through(key)
  local mapping = before[key]
  if not mapping then
    return feed(codes(key), false)
  end
  local is_remapped = mapping.noremap == 0
  local keys
  if mapping.callback then
    local result = mapping.callback()
    if mapping.expr == 0 or type(result) ~= 'string' then
      return
    end
    keys = mapping.replace_keycodes == 1 and codes(result) or result
  else
    local rhs = (mapping.rhs or ''):gsub('<SID>', ('<SNR>%d_'):format(mapping.sid or 0))
    if mapping.expr == 1 then
      keys = vim.api.nvim_eval(rhs)
      keys = mapping.replace_keycodes == 1 and codes(keys) or keys
    else
      keys = codes(rhs)
    end
  end
  local raw = codes(key)
  if is_remapped and vim.startswith(keys, raw) then -- Neovim does not map the beginning of such a mapping again either
    feed(keys:sub(#raw + 1), true)
    return feed(raw, false)
  end
  feed(keys, is_remapped)
end

---@param key string
---@param what string
---@param act fun(): boolean? false: nothing was to be done
local function map(key, what, act)
  local mapping = mapping_of(key)
  if not (mapping and is_ours(mapping)) then
    before[key] = mapping or false
  end
  vim.keymap.set('i', key, function()
    if act() == false then
      fall_through(key)
    end
  end, { desc = DESCRIPTION .. what, silent = true })
end

--- The actions, by the names that `keys` has in the options. Each says whether it had something to do.
---@type table<string, { [1]: string, [2]: fun(): boolean }>
M.actions = {
  accept = {
    'accept the suggestion',
    function()
      return require('codestral').accept()
    end,
  },
  accept_word = {
    'accept a word of the suggestion',
    function()
      return require('codestral').accept_word()
    end,
  },
  accept_line = {
    'accept a line of the suggestion',
    function()
      return require('codestral').accept_line()
    end,
  },
  next = {
    'next suggestion',
    function()
      return require('codestral').next()
    end,
  },
  prev = {
    'previous suggestion',
    function()
      return require('codestral').prev()
    end,
  },
  trigger = {
    'suggest here, or suggest something else',
    function()
      return require('codestral').trigger()
    end,
  },
  dismiss = {
    'dismiss the suggestion',
    function()
      return require('codestral').dismiss()
    end,
  },
}

--- Maps what the options say, and gives back keys that they say no longer.
function M.map()
  for key, mapping in pairs(before) do
    local now = mapping_of(key)
    if now and is_ours(now) then
      vim.keymap.del('i', key)
      if mapping then
        vim.fn.mapset('i', false, mapping)
      end
    end
  end
  before = {}
  for name, action in pairs(M.actions) do
    local key = config.values.keys[name]
    if key then
      map(key, action[1], action[2])
    end
  end
end

return M
