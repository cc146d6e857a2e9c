# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# What bash offers after srpctl. The verbs and options are those of srpctl --help, which a test compares.

# _srpctl_things KIND...: of these kinds (port, target, lun), as paths, and targets also by name.
_srpctl_things() {
    local kind path kinds=" $* "
    while IFS=$'\t' read -r kind path _; do
        [[ $kinds == *" $kind "* ]] || continue
        printf '%s\n' "$path"
        [[ $kind == lun ]] || printf '%s\n' "${path##*/}"
    done < <(srpctl --timeout 2 --output plain "${_srpctl_mount[@]}" list 2>/dev/null)
}

# Of the names that stand on lines of standard input, those that begin with what was typed, quoted for the command line. Not by compgen -W,
# which would carry out what looks like a command in them: everybody may give a mount point such a name.
_srpctl_names() {
    local name quoted
    while IFS= read -r name; do
        printf -v quoted %q "$name"
        [[ $name == "$current"* || $quoted == "$current"* ]] && COMPREPLY+=("$quoted")
    done
}

# Files that begin with what was typed; what is behind a tilde is left to bash.
_srpctl_files() {
    local name
    [[ $current == '~'* ]] && return
    while IFS= read -r name; do
        if [[ -d $name ]]; then printf '%s/\n' "$name"; else printf '%s\n' "$name"; fi
    done < <(compgen -f -- "$current")
}

_srpctl() {
    local verbs="list show login login-all logout logout-all rescan reset set reservations copy stats top events why config help"
    local common="-m --mount -o --output -t --timeout -h --help -V --version"
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' offered='' i
    local -a _srpctl_mount=()
    COMPREPLY=()
    # bash cuts words at =, which options and settings have in them.
    [[ $current == = ]] && current=''
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -m | --mount)
                [[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))
                _srpctl_mount=(--mount "${COMP_WORDS[++i]//[\\\"\']/}")
                ;;
            -o | --output | -t | --timeout | -p | --port | -n | --count | -d | --delay | --journal | --block-size | --offset | --length | --seek | -c | --config | --since | --until) ((i++)) ;;
            -* | =) ;;
            *) [[ $verb ]] || verb=${COMP_WORDS[i]} ;;
        esac
    done
    case $previous in
        -m | --mount) compopt -o dirnames; return ;;
        -o | --output) mapfile -t COMPREPLY < <(compgen -W "table json plain" -- "$current"); return ;;
        -p | --port) _srpctl_names < <(_srpctl_things port); return ;;
        --journal | -c | --config) compopt -o default; return ;;
        -t | --timeout | -n | --count | -d | --delay | --block-size | --offset | --length | --seek) return ;;
        --since | --until) mapfile -t COMPREPLY < <(compgen -W "today yesterday 10m 1h 1d" -- "$current"); return ;;
    esac
    if [[ $current != -* ]]; then
        case $verb in
            '' | help) offered=$verbs ;;
            show | stats | rescan | reset) _srpctl_names < <(_srpctl_things port target lun) ;;
            reservations)
                offered='register register-ignore unregister reserve release preempt preempt-abort clear'
                offered+=' write-exclusive exclusive-access write-exclusive-registrants-only exclusive-access-registrants-only'
                offered+=' write-exclusive-all-registrants exclusive-access-all-registrants'
                _srpctl_names < <(_srpctl_things lun)
                ;;
            logout) _srpctl_names < <(_srpctl_things target) ;;
            copy)
                compopt -o default
                _srpctl_names < <(_srpctl_things lun; _srpctl_files)
                ;;
            login) offered='id_ext=' ;;
            why)
                offered='id_ext='
                compopt -o default
                _srpctl_names < <(_srpctl_files)
                ;;
            config | login-all)
                compopt -o default
                if [[ $previous == config ]]; then offered='check show convert'; else _srpctl_names < <(_srpctl_files); fi
                ;;
            set)
                offered='reconnect_delay= fast_io_fail_tmo= dev_loss_tmo= read_only= uid= gid= mode= cache='
                _srpctl_names < <(_srpctl_things port target lun)
                ;;
        esac
    else
        case $verb in
            list) offered="-v --verbose $common" ;;
            login) offered="-p --port $common" ;;
            login-all) offered="-p --port -c --config $common" ;;
            copy) offered="-y --yes --verify --verify-only --no-resume --offset --length --seek --journal --block-size $common" ;;
            top) offered="-b --batch -d --delay -n --count $common" ;;
            events) offered="-f --follow -n --count --since --until $common" ;;
            *) offered=$common ;;
        esac
    fi
    [[ $offered ]] && mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$offered" -- "$current")
    [[ ${COMPREPLY[0]-} == *[=/] ]] && compopt -o nospace
    return 0
}

complete -F _srpctl srpctl
