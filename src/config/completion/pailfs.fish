# Completion of pailfs(8) for fish 3 and later, as 'pailfs completions fish' prints it. To be kept as
# ~/.config/fish/completions/pailfs.fish.

set -g __pailfs_commands @@COMMANDS@@

function __pailfs_is_first
    test (count (commandline -opc)) -eq 1
end

function __pailfs_command_is
    set -l words (commandline -opc)
    set -l command mount
    if set -q words[2]; and contains -- $words[2] $__pailfs_commands
        set command $words[2]
    end
    test $command = $argv[1]
end

# Options that a list may hold, each with its help.
function __pailfs_list_options
@@LIST@@
end

# NAME BEGINNING: what an option of a list takes.
function __pailfs_list_values
    switch $argv[1]
@@VALUES@@
    end
end

# The word holds options with commas between them, the last one not at its end.
function __pailfs_list
    set -l word (string replace -r '^-o' '' -- (commandline -ct))
    set -l head (string match -r '^.*,' -- $word)
    set -l element (string replace -r '^.*,' '' -- $word)
    if string match -q '*=*' -- $element
        set -l name (string replace -r '=.*' '' -- $element)
        for value in (__pailfs_list_values (string replace -a - _ -- $name))
            echo "$head$name=$value"
        end
    else
        for option in (__pailfs_list_options)
            echo "$head$option"
        end
    end
end

# Mountpoints, and what is below them.
function __pailfs_mount
    while read -l device directory type rest
        test $type = fuse.pailfs; and printf '%b\n' (string replace -a \\ \\0 -- $directory)
    end </proc/self/mounts
    __fish_complete_path (commandline -ct)
end

complete -c pailfs -f
@@DESCRIBED@@
@@OPTIONS@@
