-- Loaded by Neovim itself. Costs next to nothing until the first file is opened.

if vim.g.loaded_codestral then
  return
end
vim.g.loaded_codestral = 1

if vim.fn.has('nvim-0.10') == 0 then
  vim.notify('codestral: Neovim 0.10 or later is needed; see :version', vim.log.levels.WARN)
  return
end

local function start()
  require('codestral').start()
end

-- Not before the user's own files have been read, so that `setup` and mappings of theirs come first.
vim.api.nvim_create_autocmd({ 'BufReadPost', 'BufNewFile', 'InsertEnter' }, {
  group = vim.api.nvim_create_augroup('codestral-start', { clear = true }),
  once = true,
  callback = vim.schedule_wrap(start),
})
if vim.v.vim_did_enter == 1 then -- a plugin manager loads it late: the first file is open already
  vim.schedule(start)
end

for name in pairs({ accept = 1, accept_word = 1, accept_line = 1, next = 1, prev = 1, trigger = 1, dismiss = 1 }) do
  vim.keymap.set('i', ('<Plug>(codestral-%s)'):format(name:gsub('_', '-')), function()
    require('codestral')[name]()
  end, { desc = 'codestral: ' .. name:gsub('_', ' ') })
end

vim.api.nvim_create_user_command('Codestral', function(arguments)
  require('codestral.command').run(arguments.fargs)
end, {
  nargs = '*',
  desc = 'codestral: status, pause, resume, restart, read, log, clear_cache, enable, disable, toggle',
  complete = function(lead, line)
    return require('codestral.command').complete(lead, line)
  end,
})
