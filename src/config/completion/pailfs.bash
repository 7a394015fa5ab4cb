# Completion of pailfs(8) for bash 4.2 and later, as 'pailfs completions bash' prints it. To be read by the shell, or kept as
# /usr/share/bash-completion/completions/pailfs.

_pailfs_commands='@@COMMANDS@@'
_pailfs_list_options='@@LIST@@'

# Sets options to those of a command.
_pailfs_options() {
    case $1 in
@@OPTIONS@@
        *) options= ;;
    esac
}

# Sets takes to what an option, an option of a list, or COMMAND:POSITION takes.
_pailfs_takes() {
    case $1 in
@@TAKES@@
        *) takes= ;;
    esac
}

# WORD CANDIDATE...: answers with those that begin with the word. What readline replaces begins behind the last character at
# which it breaks words, so that the answers must not have what stands before.
_pailfs_reply() {
    local word=$1 kept candidate
    kept=${word%"${word##*[$COMP_WORDBREAKS]}"}
    shift
    for candidate; do
        [[ $candidate == "$word"* ]] && COMPREPLY+=("${candidate#"$kept"}")
    done
}

# WORD PREFIX TAKES: the word is the prefix and the beginning of a value.
_pailfs_value() {
    local word=$1 prefix=$2 value
    local -a values=()
    case $3 in
        '' | @text) ;;
        @file) compopt -o default ;;
        @directory) compopt -o dirnames ;;
        @mount) _pailfs_mount "$word" ;;
        @list) _pailfs_list "$word" "$prefix" ;;
        @source)
            compopt -o nospace
            _pailfs_reply "$word" s3://
            ;;
        @user) mapfile -t values < <(compgen -u -- "${word#"$prefix"}") ;;
        @group) mapfile -t values < <(compgen -g -- "${word#"$prefix"}") ;;
        @flag) values=(true false) ;;
        *) read -ra values <<< "$3" ;;
    esac
    for value in "${values[@]}"; do
        _pailfs_reply "$word" "$prefix$value"
    done
}

# WORD PREFIX: behind the prefix stand options with commas between them, the last one not at its end.
_pailfs_list() {
    local word=$1 prefix=$2 head= element option takes
    element=${word#"$prefix"}
    [[ $element == *,* ]] && head=${element%,*},
    element=${element#"$head"}
    compopt -o nospace
    if [[ $element == *=* ]]; then
        option=${element%%=*}
        _pailfs_takes "${option//-/_}"
        _pailfs_value "$word" "$prefix$head$option=" "$takes"
        return
    fi
    for option in $_pailfs_list_options; do
        [[ ,$head == *,"${option%=}"[,=]* ]] || _pailfs_reply "$word" "$prefix$head$option"
    done
}

# WORD: mountpoints, and what is below them.
_pailfs_mount() {
    local directory type
    while read -r _ directory type _; do
        [[ $type == fuse.pailfs ]] || continue
        # Blanks and the like are octal numbers there.
        printf -v directory '%b' "${directory//\\/\\0}"
        [[ $directory == "$1"* ]] && COMPREPLY+=("$directory")
    done < /proc/self/mounts
    compopt -o filenames -o default
}

_pailfs() {
    local line=${COMP_LINE:0:COMP_POINT} word options takes=
    local command=mount at=1 last position=0
    local -a words
    COMPREPLY=()
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    last=$((${#words[@]} - 1))
    word=${words[last]}
    if ((last == 1)) && [[ $word != -* ]]; then
        [[ $word == s3* ]] && compopt -o nospace
        _pailfs_reply "$word" $_pailfs_commands s3://
        return
    fi
    if [[ " $_pailfs_commands " == *" ${words[1]} "* ]]; then
        command=${words[1]}
        at=2
    fi
    while ((at < last)); do
        case ${words[at]} in
            -o?* | --*=*) ;;
            -*)
                _pailfs_takes "${words[at]}"
                if [[ -n $takes && $takes != @flag ]]; then
                    ((at += 1))
                    if ((at == last)); then
                        _pailfs_value "$word" '' "$takes"
                        return
                    fi
                fi
                ;;
            *) ((position += 1)) ;;
        esac
        ((at += 1))
    done
    case $word in
        -o?*) _pailfs_list "$word" -o ;;
        --*=*)
            _pailfs_takes "${word%%=*}"
            _pailfs_value "$word" "${word%%=*}=" "$takes"
            ;;
        -*)
            _pailfs_options "$command"
            _pailfs_reply "$word" $options
            ;;
        *)
            _pailfs_takes "$command:$position"
            _pailfs_value "$word" '' "$takes"
            ;;
    esac
}

complete -F _pailfs pailfs
