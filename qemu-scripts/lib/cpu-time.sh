# shellcheck shell=bash
# CPU time that processes and threads of this machine have used, from /proc.

CPU_TICK_US=$((1000000 / $(getconf CLK_TCK)))

# cpu_time_is_told: whether this kernel counts it for each thread.
cpu_time_is_told() {
    [[ -r /proc/self/schedstat ]]
}

# cpu_us_of_tasks TASK_DIRECTORY...: microseconds of these threads together, to the nanosecond.
cpu_us_of_tasks() {
    awk '{ ns += $1 } END { printf "%.3f\n", ns / 1000 }' "${@/%//schedstat}"
}

# cpu_us_of_process PID: microseconds of all its threads, also of those that ended, in whole ticks.
cpu_us_of_process() {
    local stat
    stat=$(<"/proc/$1/stat")
    # The name, in brackets, may hold anything; user time and system time are fields 14 and 15.
    read -r -a stat <<<"${stat##*) }"
    printf '%d\n' $(((stat[11] + stat[12]) * CPU_TICK_US))
}

# threads_named PID PATTERN: the task directories of the threads whose name matches.
threads_named() {
    local task
    for task in "/proc/$1/task"/*; do
        # shellcheck disable=SC2053  # a pattern is wanted
        if [[ $(<"$task/comm") == $2 ]]; then printf '%s\n' "$task"; fi
    done
}
