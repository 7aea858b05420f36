# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vhost_user_iscsi_global_optspecs
    string join \n print-capabilities socket-path= fd= blk-file= read-only num-queues= queue-size= sessions= share-sessions poll-max-us= command-timeout= lun-reset io-timeout= capacity-poll= ignore-power-loss serial= wait-for-target socket-mode= socket-group= iops-total= iops-total-max= iops-total-max-length= iops-read= iops-read-max= iops-read-max-length= iops-write= iops-write-max= iops-write-max-length= bps-total= bps-total-max= bps-total-max-length= bps-read= bps-read-max= bps-read-max-length= bps-write= bps-write-max= bps-write-max-length= initiator-name= login-timeout= chap-user= chap-secret-file= chap-secret-credential= chap-target-user= chap-target-secret-file= chap-target-secret-credential= header-digest= data-digest= control-socket= control-socket-mode= control-socket-group= metrics-address= sandbox= log-level= v/verbose log-format= h/help V/version
end

function __fish_vhost_user_iscsi_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vhost_user_iscsi_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vhost_user_iscsi_using_subcommand
    set -l cmd (__fish_vhost_user_iscsi_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l socket-path -d 'Listen on a UNIX socket at this path' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l fd -d 'Use this inherited socket instead, listening or connected' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l blk-file -d 'The disk: iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l num-queues -d 'The most virtqueues that a guest may use, up to 64' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l queue-size -d 'The largest ring that is accepted: a power of two' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l sessions -d 'The most iSCSI sessions to open: queues beyond them share [default: 4, but no more than processors]' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l poll-max-us -d 'Look for work for up to this time before sleeping, while that pays; 0 for never' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l command-timeout -d 'How long a command may be unanswered before it is ended and sent again: forever, or a time' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l io-timeout -d 'How long requests wait for lost storage before they fail: forever, 0, or a time such as 2m' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l capacity-poll -d 'How often to look whether the LUN has grown, for targets that do not tell: never, or a time such as 5m' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l serial -d 'The serial that the guest sees, instead of the LUN\'s own: up to 20 ASCII characters' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l socket-mode -d 'The socket\'s permission bits' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l socket-group -d 'The socket\'s group, by name or number' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-total -d 'The most requests per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-total-max -d 'As much in a burst, when less than iops-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-total-max-length -d 'How long iops-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-read -d 'The most reads per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-read-max -d 'As much in a burst, when less than iops-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-read-max-length -d 'How long iops-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-write -d 'The most writes, discards and write zeroes per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-write-max -d 'As much in a burst, when less than iops-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l iops-write-max-length -d 'How long iops-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-total -d 'The most bytes per second, such as 100MiB, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-total-max -d 'As much in a burst, when less than bps-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-total-max-length -d 'How long bps-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-read -d 'The most bytes read per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-read-max -d 'As much in a burst, when less than bps-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-read-max-length -d 'How long bps-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-write -d 'The most bytes written per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-write-max -d 'As much in a burst, when less than bps-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l bps-write-max-length -d 'How long bps-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l initiator-name -d 'Our name; else that of /etc/iscsi/initiatorname.iscsi, else one derived from the machine' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l login-timeout -d 'Time for connect, login and the look at the LUN together' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-user -d 'Our CHAP user; else that of the URL, else LIBISCSI_CHAP_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-secret-file -d 'A file with our CHAP secret that only we can read; else LIBISCSI_CHAP_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-target-user -d 'The target\'s CHAP user (mutual CHAP); else that of the URL, else LIBISCSI_CHAP_TARGET_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-target-secret-file -d 'A file with the target\'s CHAP secret; else LIBISCSI_CHAP_TARGET_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l chap-target-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l header-digest -d 'Checksums over headers: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l data-digest -d 'Checksums over data: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l control-socket -d 'Listen on a UNIX socket at this path for ls, status and the like' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l control-socket-mode -d 'The control socket\'s permission bits' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l control-socket-group -d 'The control socket\'s group, by name or number' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l metrics-address -d 'Answer Prometheus at http://ADDRESS:PORT/metrics; a port alone is one of loopback' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l sandbox -d 'What becomes of what the sandbox does not allow: enforce ends the process or refuses it, log has the kernel log system calls, off does without a sandbox' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l print-capabilities -d 'Print what this back-end can do, as QEMU\'s vhost-user.json describes it, and exit'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l read-only -d 'Offer the disk read-only'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l share-sessions -d 'Share the sessions with the other disks of this process that lie behind the same target, want the same, and have their sockets in the same directory'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l lun-reset -d 'End a late command by a LOGICAL UNIT RESET where nothing else does: it ends the commands of other hosts, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l ignore-power-loss -d 'Let a flush succeed although the target has told of a loss of power after the writes before it: for a write cache with a battery'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -l wait-for-target -d 'Keep trying while the target cannot be reached at start, instead of failing'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -s V -l version -d 'Print version'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "serve" -d 'Serve the disks of a configuration file'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "check" -d 'Say everything that is wrong with a configuration file'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "ls" -d 'List the sessions of a process that serves'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "status" -d 'Say what the disks of a process that serves are doing, and what is wrong'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "stats" -d 'Say what guests have asked for, and how fast it went'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "limits" -d 'Say what a disk is limited to, or change that'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "reload" -d 'Have a process that serves read its configuration file again'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "add" -d 'Have a process that serves take one more disk, until it ends'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "remove" -d 'Have a process that serves end one of its disks'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "top" -d 'Watch what guests ask for, and how fast it goes, as it happens'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "discover" -d 'List the portals of every target that a portal knows'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "probe" -d 'Log in to a LUN and show everything that was negotiated and found'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "explain" -d 'Say what a code means, where it usually comes from, and what to try'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "import" -d 'Turn the files of another initiator into a configuration file'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_needs_command" -f -a "iname" -d 'Print a fresh, unique initiator name'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand serve" -l config -d 'The configuration file' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand serve" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand serve" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand serve" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand serve" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -l login -d 'Log in to each disk and look at it, and ask each portal what would be served, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -l json -d 'Print JSON'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand check" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -s l -l luns -d 'Show the LUN, the guest and its queues, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -s c -l config -d 'Show what was negotiated, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand ls" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand status" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand stats" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-total -d 'The most requests per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-total-max -d 'As much in a burst, when less than iops-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-total-max-length -d 'How long iops-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-read -d 'The most reads per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-read-max -d 'As much in a burst, when less than iops-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-read-max-length -d 'How long iops-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-write -d 'The most writes, discards and write zeroes per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-write-max -d 'As much in a burst, when less than iops-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l iops-write-max-length -d 'How long iops-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-total -d 'The most bytes per second, such as 100MiB, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-total-max -d 'As much in a burst, when less than bps-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-total-max-length -d 'How long bps-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-read -d 'The most bytes read per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-read-max -d 'As much in a burst, when less than bps-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-read-max-length -d 'How long bps-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-write -d 'The most bytes written per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-write-max -d 'As much in a burst, when less than bps-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l bps-write-max-length -d 'How long bps-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l none -d 'Take all limits away'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand limits" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand reload" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l name -d 'What to call it; else the socket\'s name without .sock' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l num-queues -d 'The most virtqueues that a guest may use, up to 64' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l queue-size -d 'The largest ring that is accepted: a power of two' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l sessions -d 'The most iSCSI sessions to open: queues beyond them share [default: 4, but no more than processors]' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l poll-max-us -d 'Look for work for up to this time before sleeping, while that pays; 0 for never' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l command-timeout -d 'How long a command may be unanswered before it is ended and sent again: forever, or a time' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l io-timeout -d 'How long requests wait for lost storage before they fail: forever, 0, or a time such as 2m' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l capacity-poll -d 'How often to look whether the LUN has grown, for targets that do not tell: never, or a time such as 5m' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l serial -d 'The serial that the guest sees, instead of the LUN\'s own: up to 20 ASCII characters' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l socket-mode -d 'The socket\'s permission bits' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l socket-group -d 'The socket\'s group, by name or number' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-total -d 'The most requests per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-total-max -d 'As much in a burst, when less than iops-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-total-max-length -d 'How long iops-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-read -d 'The most reads per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-read-max -d 'As much in a burst, when less than iops-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-read-max-length -d 'How long iops-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-write -d 'The most writes, discards and write zeroes per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-write-max -d 'As much in a burst, when less than iops-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l iops-write-max-length -d 'How long iops-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-total -d 'The most bytes per second, such as 100MiB, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-total-max -d 'As much in a burst, when less than bps-total was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-total-max-length -d 'How long bps-total-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-read -d 'The most bytes read per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-read-max -d 'As much in a burst, when less than bps-read was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-read-max-length -d 'How long bps-read-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-write -d 'The most bytes written per second, or none' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-write-max -d 'As much in a burst, when less than bps-write was used' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l bps-write-max-length -d 'How long bps-write-max may last: 1s, or a time up to 1h' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l initiator-name -d 'Our name; else that of /etc/iscsi/initiatorname.iscsi, else one derived from the machine' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l login-timeout -d 'Time for connect, login and the look at the LUN together' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-user -d 'Our CHAP user; else that of the URL, else LIBISCSI_CHAP_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-secret-file -d 'A file with our CHAP secret that only we can read; else LIBISCSI_CHAP_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-target-user -d 'The target\'s CHAP user (mutual CHAP); else that of the URL, else LIBISCSI_CHAP_TARGET_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-target-secret-file -d 'A file with the target\'s CHAP secret; else LIBISCSI_CHAP_TARGET_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l chap-target-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l header-digest -d 'Checksums over headers: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l data-digest -d 'Checksums over data: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l fd -d 'Use this inherited socket instead, listening or connected' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l blk-file -d 'The disk: iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l socket-path -d 'Listen on a UNIX socket at this path' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l read-only -d 'Offer the disk read-only'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l share-sessions -d 'Share the sessions with the other disks of this process that lie behind the same target, want the same, and have their sockets in the same directory'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l lun-reset -d 'End a late command by a LOGICAL UNIT RESET where nothing else does: it ends the commands of other hosts, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l ignore-power-loss -d 'Let a flush succeed although the target has told of a loss of power after the writes before it: for a write cache with a battery'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l wait-for-target -d 'Keep trying while the target cannot be reached at start, instead of failing'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand add" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -l force -d 'Take it away from a guest that uses it, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand remove" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -l interval -d 'How long each interval is' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -s n -l count -d 'End after this many intervals' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -l control-socket -d 'The control socket of the process that serves' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -s s -l sessions -d 'Show each session, too'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -s b -l batch -d 'Print a block of text for each interval, in a terminal as well'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand top" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l initiator-name -d 'Our name; else that of /etc/iscsi/initiatorname.iscsi, else one derived from the machine' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l login-timeout -d 'Time for connect, login and the look at the LUN together' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-user -d 'Our CHAP user; else that of the URL, else LIBISCSI_CHAP_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-secret-file -d 'A file with our CHAP secret that only we can read; else LIBISCSI_CHAP_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-target-user -d 'The target\'s CHAP user (mutual CHAP); else that of the URL, else LIBISCSI_CHAP_TARGET_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-target-secret-file -d 'A file with the target\'s CHAP secret; else LIBISCSI_CHAP_TARGET_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l chap-target-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l header-digest -d 'Checksums over headers: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l data-digest -d 'Checksums over data: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand discover" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l initiator-name -d 'Our name; else that of /etc/iscsi/initiatorname.iscsi, else one derived from the machine' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l login-timeout -d 'Time for connect, login and the look at the LUN together' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-user -d 'Our CHAP user; else that of the URL, else LIBISCSI_CHAP_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-secret-file -d 'A file with our CHAP secret that only we can read; else LIBISCSI_CHAP_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-target-user -d 'The target\'s CHAP user (mutual CHAP); else that of the URL, else LIBISCSI_CHAP_TARGET_USERNAME' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-target-secret-file -d 'A file with the target\'s CHAP secret; else LIBISCSI_CHAP_TARGET_PASSWORD' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l chap-target-secret-credential -d 'The same as a credential of systemd, by its name' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l header-digest -d 'Checksums over headers: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l data-digest -d 'Checksums over data: none, crc32c, prefer or avoid (the default)' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand probe" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand explain" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand explain" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand explain" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand explain" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand explain" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -l from -d 'What the files are, instead of what they look like: sfnet, open-iscsi, initiator-name or qemu' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -l secrets-directory -d 'Write the secrets into new files in this directory, which only their owner can read' -r -F
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand import" -s h -l help -d 'Print help'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand iname" -l log-level -d 'off, error, warn, info, debug or trace; else info when serving, warn with a verb' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand iname" -l log-format -d 'text, json or journald; else journald when stderr is the journal, and text when it is not' -r
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand iname" -l json -d 'Print a JSON document'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand iname" -s v -l verbose -d 'Log one level more, each time it is given'
complete -c vhost-user-iscsi -n "__fish_vhost_user_iscsi_using_subcommand iname" -s h -l help -d 'Print help'
