#compdef pailfs
# Completion of pailfs(8) for zsh, as 'pailfs completions zsh' prints it. To be kept as _pailfs in a directory of fpath.

_pailfs_list() {
    _values -s , option \
        @@LIST@@
}

_pailfs_source() {
    compadd -S '' -- s3://
}

# Mountpoints, and what is below them.
_pailfs_mount() {
    local device directory type rest
    local -a mounts
    while read -r device directory type rest; do
        [[ $type == fuse.pailfs ]] && mounts+=("$(printf '%b' "${directory//\\/\\0}")")
    done < /proc/self/mounts
    (( $#mounts )) && compadd -f -- $mounts
    _files
}

_pailfs() {
    local curcontext=$curcontext command=mount state line
    local -A opt_args
    local -a commands=(
@@COMMANDS@@
    )
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _describe command commands
        _pailfs_source
        return
    fi
    if (( ${commands[(I)${words[2]}:*]} )); then
        command=$words[2]
        shift words
        (( CURRENT -= 1 ))
    fi
    case $command in
@@ARGUMENTS@@
    esac
}

if [[ $funcstack[1] == _pailfs ]]; then
    _pailfs "$@"
else
    compdef _pailfs pailfs
fi
