# Statistics of bench-guest: from fio's JSON to a run, from runs to a table.

# guest_run: what the guest sent, as a run in our own terms. $round, $case, $disk and the CPU times come from the host.
def guest_run:
  .interrupts as $interrupts | .fio.jobs[0] as $job
  | ([$job.read, $job.write] | max_by(.total_ios)) as $side
  | { round: $round, case: $case, disk: $disk
    , requests: $side.total_ios
    , iops: $side.iops
    , megabytes_per_s: ($side.bw_bytes / 1e6)
    , p50_us: ($side.clat_ns.percentile["50.000000"] / 1e3)
    , p99_us: ($side.clat_ns.percentile["99.000000"] / 1e3)
    , interrupts_per_request: ($interrupts / $side.total_ios)
    , cpu_us_per_request: ($cpu_us / $side.total_ios)
    , cpu_with_qemu_us_per_request: ($cpu_with_qemu_us / $side.total_ios) };

def figures:
  ["iops", "megabytes_per_s", "p50_us", "p99_us", "interrupts_per_request",
   "cpu_us_per_request", "cpu_with_qemu_us_per_request"];

def median:
  sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;

# medians: of an array of objects with the same figures.
def medians:
  . as $all | [figures[] as $name | {($name): ([$all[][$name]] | median)}] | add;

def of_disk($disk): map(select(.disk == $disk)) | sort_by(.round);

# ratios: ours to $other within each round, since a machine changes from round to round.
def ratios($other):
  [of_disk("ours"), of_disk($other)] | transpose
  | map(. as [$ours, $theirs]
    | [figures[] as $name
       # Where CPU time is counted in ticks, a short run may have used none.
       | {($name): (if $theirs[$name] > 0 then $ours[$name] / $theirs[$name] else 0 end)}] | add)
  | medians;

# summary: of all runs, for each case in the order of its first run, the medians and the ratios.
def summary:
  . as $runs
  | (reduce .[].case as $case ([]; if index([$case]) then . else . + [$case] end))
  | map(. as $case | $runs | map(select(.case == $case))
    | { case: $case
      , ours: (of_disk("ours") | medians)
      , peer: (of_disk("peer") | medians)
      , qemu: (of_disk("qemu") | medians)
      , ours_to_peer: ratios("peer")
      , ours_to_qemu: ratios("qemu") });

# lines: the summary, tab-separated: case, row, and the figures in their order.
def lines:
  .[] | . as $case | ("ours", "peer", "qemu", "ours_to_peer", "ours_to_qemu") as $row
  | [$case.case, $row] + [$case[$row][figures[]]] | @tsv;
