--- Which of Neovim's events mean something here. Decides nothing.

local client = require('codestral.client')
local config = require('codestral.config')
local engine = require('codestral.engine')
local ghost = require('codestral.ghost')

local M = {}

local function on_attach(_, bufnr)
  if config.values.render == 'native' then
    require('codestral.native').enable(engine.is_on(bufnr), bufnr)
  end
  if bufnr == vim.api.nvim_get_current_buf() then
    vim.schedule(function()
      client.focus(vim.api.nvim_get_current_buf())
      engine.refresh() -- for who types already
    end)
  end
end

--- Once for all buffers; called again it replaces what it did before.
function M.listen()
  local group = vim.api.nvim_create_augroup('codestral', { clear = true })
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback })
  end

  client.on_attach = on_attach
  ghost.define_highlights()
  on('ColorScheme', ghost.define_highlights)
  on({ 'BufReadPost', 'BufNewFile', 'FileType', 'BufFilePost', 'BufWritePost' }, function(event)
    vim.schedule(function() -- the file type is known by then
      if vim.api.nvim_buf_is_valid(event.buf) then
        client.attach(event.buf)
      end
    end)
  end)
  on('BufEnter', function(event)
    vim.schedule(function()
      -- A file that is about to be told to the server gets the focus once that is done.
      if
        event.buf == vim.api.nvim_get_current_buf()
        and not (client.is_wanted(event.buf) and not client.is_attached(event.buf))
      then
        client.focus(event.buf)
      end
    end)
  end)
  on({ 'InsertEnter', 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, function()
    engine.refresh()
  end)
  on({ 'CompleteChanged', 'CompleteDone' }, function() -- the menu is about to come or to go
    vim.schedule(engine.refresh)
  end)
  vim.api.nvim_create_autocmd('User', {
    group = group,
    pattern = { 'BlinkCmpMenuOpen', 'BlinkCmpMenuClose' },
    callback = vim.schedule_wrap(function()
      engine.refresh()
    end),
  })
  on({ 'InsertLeave', 'BufLeave', 'WinLeave' }, engine.clear)
  on({ 'WinScrolled', 'WinResized', 'VimResized' }, engine.redraw)
end

return M
