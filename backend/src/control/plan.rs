//! What has to happen that the disks of a source become what they should be: a comparison, and nothing
//! else. [`Fleet`](super::fleet::Fleet) does it.
//!
//! Settings are compared by value. What must not end (a guest uses it) may hold a socket that another
//! disk should have now: that one waits, and if it is served it is kept as it is, too, rather than ended
//! with nowhere to go.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::changes::NamedReason;
use crate::config::{DiskName, MAX_DISKS, ServedDisk, SocketSettings};

/// Who wants a disk. Each has a set of its own, and changes no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// The configuration file, or the command line of a single disk.
    File,
    /// Somebody who asked for it at run time.
    Command,
    /// What was found at the portals, all of them together.
    Portals,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "of the configuration",
            Self::Command => "added at run time",
            Self::Portals => "found at a portal",
        })
    }
}

/// A disk that there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) source: &'a Source,
    pub(super) served: &'a ServedDisk,
    pub(super) is_used: bool,
    pub(super) has_ended: bool,
}

/// What a disk is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Added,
    Changed,
    Restarted,
}

/// What has to happen, in this order: some stay, some end, some start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Served as they should be.
    pub(super) stay: Vec<DiskName>,
    /// Not to be ended now, although they should not be served so.
    pub(super) keep: Vec<NamedReason>,
    /// To be ended, those that are started again as well, or to be forgotten, having ended.
    pub(super) end: Vec<DiskName>,
    /// To be started when all of those have ended.
    pub(super) start: Vec<(Start, ServedDisk)>,
    /// Wanted, but there is no place for them yet.
    pub(super) wait: Vec<(ServedDisk, String)>,
}

/// Compares what there is with what `source` wants.
pub(super) fn plan(members: &[Member<'_>], source: &Source, wanted: &[ServedDisk]) -> Plan {
    let wanted_by_name: HashMap<_, _> = wanted.iter().map(|disk| (&disk.name, disk)).collect();
    let wish = |member: &Member<'_>| wanted_by_name.get(&member.served.name).copied();
    let mut plan = Plan::default();
    let live = members.iter().filter(|member| !member.has_ended);
    let (mut held, mut leaving) = (Sockets::default(), Vec::new());
    for member in live {
        let is_right = wish(member) == Some(member.served);
        if member.source != source || is_right || member.is_used {
            held.insert(member.served);
        } else {
            leaving.push(*member);
        }
        if member.source == source && is_right {
            plan.stay.push(member.served.name.clone());
        } else if member.source == source && member.is_used {
            plan.keep
                .push(NamedReason::new(member.served.name.as_str(), USED));
        }
    }
    keep_those_with_nowhere_to_go(&mut leaving, wish, &mut held, &mut plan);
    let gone = members
        .iter()
        .filter(|m| m.has_ended && m.source == source && wish(m).is_none());
    let ending = leaving.iter().chain(gone);
    plan.end = ending.map(|m| m.served.name.clone()).collect();
    let is_served =
        |name| plan.stay.contains(name) || plan.keep.iter().any(|k| k.name == name.as_str());
    let starting: Vec<_> = wanted
        .iter()
        .filter(|disk| !is_served(&disk.name))
        .collect();
    for disk in starting {
        match held.owner(disk) {
            Some(owner) => plan.wait.push((disk.clone(), no_room(owner))),
            None => plan
                .start
                .push((start_for(disk, members, source), disk.clone())),
        }
    }
    plan
}

pub(super) const USED: &str = "a guest uses it";

fn no_room(owner: &DiskName) -> String {
    format!("its socket is that of disk {} yet", owner.as_str())
}

/// One that is kept may keep a socket from the next: until there is none any more.
fn keep_those_with_nowhere_to_go<'a>(
    leaving: &mut Vec<Member<'a>>,
    wish: impl Fn(&Member<'a>) -> Option<&'a ServedDisk>,
    held: &mut Sockets,
    plan: &mut Plan,
) {
    let blocked = |member: &Member<'a>, held: &Sockets| held.owner(wish(member)?).cloned();
    while let Some((at, owner)) = leaving
        .iter()
        .enumerate()
        .find_map(|(at, member)| Some((at, blocked(member, held)?)))
    {
        let member = leaving.remove(at);
        held.insert(member.served);
        let name = member.served.name.as_str();
        plan.keep.push(NamedReason::new(name, no_room(&owner)));
    }
}

fn start_for(disk: &ServedDisk, members: &[Member<'_>], source: &Source) -> Start {
    let mut own = members.iter().filter(|member| member.source == source);
    match own.find(|member| member.served.name == disk.name) {
        None => Start::Added,
        Some(member) if member.has_ended && member.served == disk => Start::Restarted,
        Some(_) => Start::Changed,
    }
}

/// Whose each socket is. A connected socket that was inherited is nobody else's.
#[derive(Debug, Default)]
struct Sockets(HashMap<PathBuf, DiskName>);

impl Sockets {
    /// Takes it, unless another has it: whose it is then.
    fn insert(&mut self, disk: &ServedDisk) -> Option<DiskName> {
        let path = socket_path(disk)?;
        match self.0.get(&path) {
            Some(owner) => Some(owner.clone()),
            None => {
                self.0.insert(path, disk.name.clone());
                None
            }
        }
    }

    fn owner(&self, disk: &ServedDisk) -> Option<&DiskName> {
        self.0.get(&socket_path(disk)?)
    }
}

/// Where a disk's socket is; two spellings that only the file system knows to be the same are told
/// apart, and the lock file beside the socket keeps them apart.
pub(super) fn socket_path(disk: &ServedDisk) -> Option<PathBuf> {
    match &disk.socket {
        SocketSettings::Path(settings) => {
            let path: &Path = settings.path.as_path();
            Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
        }
        SocketSettings::Fd(_) => None,
    }
}

/// Everything that keeps `source` from having these disks: names and sockets are unique, whoever wants
/// them, and their number has a bound. `others` are the disks that other sources have or want.
pub(super) fn clashes(
    others: &[(&Source, &ServedDisk)],
    source: &Source,
    wanted: &[ServedDisk],
) -> Vec<String> {
    let mut clashes = Vec::new();
    let mut names: HashMap<_, _> = others
        .iter()
        .map(|(who, disk)| (&disk.name, *who))
        .collect();
    if names.len() + wanted.len() > MAX_DISKS {
        clashes.push(format!("there would be more than {MAX_DISKS} disks"));
    }
    let with_socket = |&(who, disk)| Some((socket_path(disk)?, (who, disk)));
    let mut sockets: HashMap<_, _> = others.iter().filter_map(with_socket).collect();
    for disk in wanted {
        let name = disk.name.as_str();
        if let Some(other) = names.insert(&disk.name, source) {
            clashes.push(format!("there is a disk {name} already, {other}"));
        }
        let taken = socket_path(disk).and_then(|path| sockets.insert(path, (source, disk)));
        if let Some((who, owner)) = taken.filter(|(_, owner)| owner.name != disk.name) {
            let owner = owner.name.as_str();
            clashes.push(format!(
                "disk {name}: its socket-path is that of disk {owner}, {who}"
            ));
        }
    }
    clashes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SocketPath, SocketPathSettings};
    use crate::control::test_disk::disk;

    const FILE: Source = Source::File;

    /// Disks that are there: served, used by a guest, or ended.
    #[derive(Default)]
    struct There {
        served: Vec<ServedDisk>,
        used: &'static [&'static str],
        ended: &'static [&'static str],
    }

    impl There {
        fn plan(&self, wanted: &[ServedDisk]) -> Plan {
            let member = |served| {
                let is = |names: &[&str]| names.contains(&ServedDisk::name_of(served));
                Member {
                    source: &FILE,
                    served,
                    is_used: is(self.used),
                    has_ended: is(self.ended),
                }
            };
            let members: Vec<_> = self.served.iter().map(member).collect();
            plan(&members, &FILE, wanted)
        }
    }

    impl ServedDisk {
        fn name_of(&self) -> &str {
            self.name.as_str()
        }
    }

    fn names(plan: &Plan) -> [Vec<&str>; 5] {
        [
            plan.stay.iter().map(DiskName::as_str).collect(),
            plan.keep.iter().map(|kept| kept.name.as_str()).collect(),
            plan.end.iter().map(DiskName::as_str).collect(),
            plan.start.iter().map(|(_, disk)| disk.name_of()).collect(),
            plan.wait.iter().map(|(disk, _)| disk.name_of()).collect(),
        ]
    }

    fn at(name: &str, socket: &str) -> ServedDisk {
        let mut disk = disk(name);
        disk.socket = SocketSettings::Path(SocketPathSettings {
            path: SocketPath::new(PathBuf::from(format!("/run/{socket}"))).unwrap(),
            mode: 0o660,
            group_id: None,
        });
        disk
    }

    fn read_only(name: &str) -> ServedDisk {
        let mut disk = disk(name);
        disk.disk.read_only = true;
        disk
    }

    #[test]
    fn only_what_differs_is_touched() {
        let there = There {
            served: ["same", "other", "gone", "failed"].map(disk).to_vec(),
            ended: &["failed"],
            ..There::default()
        };
        let wanted = [
            disk("same"),
            read_only("other"),
            disk("failed"),
            disk("new"),
        ];
        let plan = there.plan(&wanted);
        assert_eq!(
            names(&plan),
            [
                vec!["same"],
                vec![],
                vec!["other", "gone"],
                vec!["other", "failed", "new"],
                vec![]
            ]
        );
        let why: Vec<_> = plan.start.iter().map(|(why, _)| *why).collect();
        assert_eq!(why, [Start::Changed, Start::Restarted, Start::Added]);
    }

    #[test]
    fn one_that_has_ended_and_is_not_wanted_is_forgotten() {
        let there = There {
            served: vec![disk("a")],
            ended: &["a"],
            ..There::default()
        };
        assert_eq!(names(&there.plan(&[]))[2], ["a"]);
    }

    #[test]
    fn one_that_a_guest_uses_is_kept_whatever_is_wanted() {
        let there = There {
            served: ["changed", "gone", "same"].map(disk).to_vec(),
            used: &["changed", "gone", "same"],
            ..There::default()
        };
        let plan = there.plan(&[read_only("changed"), disk("same")]);
        assert_eq!(
            names(&plan),
            [
                vec!["same"],
                vec!["changed", "gone"],
                vec![],
                vec![],
                vec![]
            ]
        );
    }

    #[test]
    fn two_change_places_unless_one_cannot_leave() {
        let mut there = There {
            served: vec![at("a", "1"), at("b", "2"), at("c", "3")],
            ..There::default()
        };
        let wanted = [at("a", "2"), at("b", "3"), at("c", "1"), at("d", "4")];
        let plan = there.plan(&wanted);
        assert_eq!(
            names(&plan),
            [
                vec![],
                vec![],
                vec!["a", "b", "c"],
                vec!["a", "b", "c", "d"],
                vec![]
            ]
        );
        there.used = &["b"];
        let plan = there.plan(&wanted);
        let [stay, mut keep, end, start, wait] = names(&plan);
        keep.sort_unstable();
        assert_eq!(keep, ["a", "b", "c"]);
        assert_eq!(
            (stay, end, start, wait),
            (vec![], vec![], vec!["d"], vec![])
        );
        let reason = &plan
            .keep
            .iter()
            .find(|kept| kept.name == "a")
            .unwrap()
            .reason;
        assert_eq!(reason, "its socket is that of disk b yet");
    }

    #[test]
    fn a_new_one_waits_for_a_socket_that_a_guest_still_uses() {
        let there = There {
            served: vec![at("old", "1")],
            used: &["old"],
            ..There::default()
        };
        let plan = there.plan(&[at("new", "1")]);
        assert_eq!(
            names(&plan),
            [vec![], vec!["old"], vec![], vec![], vec!["new"]]
        );
    }

    #[test]
    fn disks_of_another_source_are_left_alone() {
        let (mine, other) = (disk("mine"), disk("other"));
        let member = |source, served| Member {
            source,
            served,
            is_used: false,
            has_ended: false,
        };
        let members = [member(&FILE, &mine), member(&Source::Command, &other)];
        let plan = plan(&members, &FILE, &[]);
        assert_eq!(names(&plan)[2], ["mine"]);
    }

    #[test]
    fn names_and_sockets_are_unique_over_all_sources() {
        let (there, there_too) = (at("a", "1"), at("b", "2"));
        let others = [(&Source::Command, &there), (&Source::Command, &there_too)];
        let said = |wanted: &[ServedDisk]| clashes(&others, &FILE, wanted);
        assert_eq!(said(&[at("c", "3")]), [""; 0]);
        assert_eq!(
            said(&[at("a", "3")]),
            ["there is a disk a already, added at run time"]
        );
        assert_eq!(
            said(&[at("c", "x/../2")]).len(),
            0,
            "only the file system knows"
        );
        assert_eq!(
            said(&[at("c", "./2"), at("d", "2")]),
            [
                "disk c: its socket-path is that of disk b, added at run time",
                "disk d: its socket-path is that of disk c, of the configuration"
            ]
        );
        let many: Vec<_> = (0..MAX_DISKS).map(|n| disk(&format!("d{n}"))).collect();
        assert!(said(&many)[0].contains("more than 1024"));
    }
}
