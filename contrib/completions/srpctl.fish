# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# What fish offers after srpctl. The verbs and options are those of srpctl --help, which a test compares.

# The option that chooses the mount, as it was typed.
function __srpctl_mount
    set --local previous
    for word in (commandline --cut-at-cursor --current-process --tokenize)
        if contains -- "$previous" -m --mount
            printf '%s\n' --mount $word
        else if string match --quiet -- '--mount=*' $word
            printf '%s\n' $word
        else if string match --quiet --regex -- '^-m.' $word
            printf '%s\n' $word
        end
        set previous $word
    end
end

# Of these kinds (port, target, lun), as paths, and ports and targets also by name.
function __srpctl_things
    srpctl --timeout 2 --output plain (__srpctl_mount) list 2>/dev/null | while read --local --delimiter \t kind path rest
        contains -- $kind $argv; or continue
        echo $path
        test $kind = lun; or string replace --regex '.*/' '' -- $path
    end
end

set --local verbs list show login login-all logout logout-all rescan reset set reservations copy stats top events why config help

complete -c srpctl -f
complete -c srpctl -s m -l mount -x -a '(__fish_complete_directories)' -d 'The mount point, or anything below it'
complete -c srpctl -s o -l output -x -a 'table json plain' -d 'Format of the output'
complete -c srpctl -s t -l timeout -x -d 'How long srpfs may be silent, in seconds'
complete -c srpctl -s h -l help -d 'Show a summary'
complete -c srpctl -s V -l version -d 'Show the version'

complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a list -d 'Show targets and their LUNs, of all mounts'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a show -d 'Show everything about a port, a target or a LUN'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a login -d 'Log in to a target'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a login-all -d 'Log in to every line of a file'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a logout -d 'Log out of targets'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a logout-all -d 'Log out of all targets of the mount'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a rescan -d 'Look for new, changed and vanished LUNs'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a reset -d 'Reset LUNs, or connections of targets'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a set -d 'Change timers of targets, or settings of LUNs'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a reservations -d 'Show or change persistent reservations'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a copy -d 'Copy a LUN to a file, or a file or LUN to a LUN'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a stats -d 'Show what has been counted'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a top -d 'Show how busy targets and LUNs are'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a events -d 'Show what has happened, and what happens'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a why -d 'Find out what does not work'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a config -d 'Look at configuration files'
complete -c srpctl -n "not __fish_seen_subcommand_from $verbs" -a help -d 'Show what srpctl can do, or what a verb can'

complete -c srpctl -n '__fish_seen_subcommand_from list' -s v -l verbose -d 'Three tables: ports, targets, LUNs'
complete -c srpctl -n '__fish_seen_subcommand_from login login-all' -s p -l port -x -a '(__srpctl_things port)' -d 'Log in through this local port'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -s y -l yes -d 'Write onto a LUN without asking'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l verify -d 'Read both afterwards, and compare'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l verify-only -d 'Compare, and copy nothing'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l no-resume -d 'Begin anew'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l journal -r -F -d 'Where is noted how far it is'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l offset -x -d 'Where in the source to begin'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l length -x -d 'How much to copy'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l seek -x -d 'Where in the target, a LUN, to begin'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -l block-size -x -d 'Bytes of a block'
complete -c srpctl -n '__fish_seen_subcommand_from copy' -F -a '(__srpctl_things lun)'
complete -c srpctl -n '__fish_seen_subcommand_from events' -s f -l follow -d 'Then show each event as it happens'
complete -c srpctl -n '__fish_seen_subcommand_from events' -s n -l count -x -d 'Begin with the last so many events'
complete -c srpctl -n '__fish_seen_subcommand_from events' -l since -x -a 'today yesterday 10m 1h 1d' -d 'None before this time'
complete -c srpctl -n '__fish_seen_subcommand_from events' -l until -x -a 'today yesterday 10m 1h 1d' -d 'None after this time'
complete -c srpctl -n '__fish_seen_subcommand_from top' -s b -l batch -d 'Print one after the other, for scripts'
complete -c srpctl -n '__fish_seen_subcommand_from top' -s d -l delay -x -d 'Time between two looks, in seconds'
complete -c srpctl -n '__fish_seen_subcommand_from top' -s n -l count -x -d 'End after this many looks'
complete -c srpctl -n '__fish_seen_subcommand_from show stats rescan reset set' -a '(__srpctl_things port target lun)'
complete -c srpctl -n '__fish_seen_subcommand_from reservations' -a '(__srpctl_things lun)'
complete -c srpctl -n '__fish_seen_subcommand_from reservations' -a 'register register-ignore unregister reserve release preempt preempt-abort clear'
complete -c srpctl -n '__fish_seen_subcommand_from reservations' -a '{write-exclusive,exclusive-access}{,-registrants-only,-all-registrants}'
complete -c srpctl -n '__fish_seen_subcommand_from logout' -a '(__srpctl_things target)'
complete -c srpctl -n '__fish_seen_subcommand_from set' -a 'reconnect_delay= fast_io_fail_tmo= dev_loss_tmo= read_only= uid= gid= mode= cache='
complete -c srpctl -n '__fish_seen_subcommand_from login why' -a 'id_ext='
complete -c srpctl -n '__fish_seen_subcommand_from why' -F
complete -c srpctl -n '__fish_seen_subcommand_from login-all' -F
complete -c srpctl -n '__fish_seen_subcommand_from login-all' -s c -l config -r -F -d 'Only what the rules of this file allow'
complete -c srpctl -n '__fish_seen_subcommand_from help' -a "$verbs"
complete -c srpctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from check show convert' -a 'check show convert'
complete -c srpctl -n '__fish_seen_subcommand_from config' -F
