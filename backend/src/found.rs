//! Disks that are found at portals rather than configured: what was found, and which of it is served.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use iscsi_core::name::IscsiName;

use crate::config::{DiskName, MAX_DISKS, PortalSettings, ServedDisk, SocketSettings};
use crate::portal::Portal;

/// A LUN that is a disk, wherever its target was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoundLun {
    /// TargetName.
    pub target: IscsiName,
    /// Its number.
    pub lun: u16,
}

impl FoundLun {
    /// The LUN behind a disk.
    pub fn of(disk: &ServedDisk) -> Self {
        let url = &disk.disk.target;
        Self {
            target: url.target.clone(),
            lun: url.lun,
        }
    }
}

/// LUNs, each with the portal to log in at.
pub type FoundLuns = BTreeMap<FoundLun, Portal>;

/// What one discovery came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The disks: those that were seen, and those known before whose target could not be asked.
    pub luns: FoundLuns,
    /// How many targets the portal has that count.
    pub targets: usize,
    /// Why a target could not be asked, in words.
    pub troubles: BTreeMap<IscsiName, String>,
    /// What was left out, for there is too much of it.
    pub cuts: Vec<String>,
}

impl Discovered {
    /// What needs somebody's attention, in words.
    pub fn problems(&self) -> Vec<String> {
        let troubles = self.troubles.iter();
        let troubles = troubles.map(|(target, reason)| format!("target {target}: {reason}"));
        troubles.chain(self.cuts.iter().cloned()).collect()
    }
}

/// What is served of all that was found.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The disks.
    pub disks: Vec<ServedDisk>,
    /// Which portal each of them is served from, by its place among the portals.
    pub origins: BTreeMap<FoundLun, usize>,
    /// What is not served although it was found, in words, each with the portal's place.
    pub left_out: Vec<(usize, String)>,
}

impl Selection {
    /// The disks of a portal, by its place among the portals.
    pub fn of_portal(&self, index: usize) -> impl Iterator<Item = &ServedDisk> {
        let is_of_portal = move |disk: &&ServedDisk| {
            let found = FoundLun::of(disk);
            self.origins.get(&found) == Some(&index)
        };
        self.disks.iter().filter(is_of_portal)
    }

    /// What of a portal is not served although it was found, in words.
    pub fn left_out_of(&self, index: usize) -> Vec<String> {
        let own = self.left_out.iter().filter(|(origin, _)| *origin == index);
        own.map(|(_, message)| message.clone()).collect()
    }
}

/// Chooses what is served: each LUN once, whatever number of portals it was found at. `others` are
/// the disks that are served in any case, perhaps with former settings of theirs as well: none of
/// theirs is served twice.
///
/// A disk stays with the portal that it is served from (`former`) as long as it is found there; else
/// it goes with the first portal of the list.
pub fn select(
    portals: &[(&PortalSettings, &FoundLuns)],
    others: &[ServedDisk],
    former: &BTreeMap<FoundLun, usize>,
) -> Selection {
    let mut taken = Taken::of(others);
    let mut selection = Selection::default();
    // What is served already has the right of way where there is not room for all.
    let (served, new): (Vec<_>, Vec<_>) = origins(portals, former)
        .into_iter()
        .filter(|(found, _)| !taken.luns.contains(found))
        .partition(|(found, _)| former.contains_key(*found));
    let mut surplus: BTreeMap<usize, usize> = BTreeMap::new();
    for (found, index) in served.into_iter().chain(new) {
        let Some(disk) = disk(portals, index, found) else {
            continue;
        };
        if taken.names.len() >= MAX_DISKS {
            *surplus.entry(index).or_default() += 1;
        } else if let Err(what) = taken.claim(&disk) {
            let FoundLun { target, lun } = found;
            let message = format!(
                "LUN {lun} of {target} is not served: another disk has the {what} that it would have"
            );
            selection.left_out.push((index, message));
        } else {
            selection.disks.push(disk);
            selection.origins.insert(found.clone(), index);
        }
    }
    selection
        .left_out
        .extend(surplus.into_iter().map(|(index, count)| {
            let message = format!(
                "{count} disks that were found are not served: a process serves {MAX_DISKS} at most"
            );
            (index, message)
        }));
    selection.disks.sort_by_cached_key(FoundLun::of);
    selection
}

fn disk(
    portals: &[(&PortalSettings, &FoundLuns)],
    index: usize,
    found: &FoundLun,
) -> Option<ServedDisk> {
    let (settings, luns) = portals.get(index)?;
    Some(settings.disk(found, luns.get(found)?))
}

/// The portal that each LUN belongs to.
fn origins<'a>(
    portals: &[(&PortalSettings, &'a FoundLuns)],
    former: &BTreeMap<FoundLun, usize>,
) -> BTreeMap<&'a FoundLun, usize> {
    let mut origins = BTreeMap::new();
    for (index, (settings, luns)) in portals.iter().enumerate() {
        for found in luns
            .keys()
            .filter(|found| settings.filter.wants(&found.target))
        {
            let is_former = former.get(found) == Some(&index);
            let origin = origins.entry(found).or_insert(index);
            if is_former {
                *origin = index;
            }
        }
    }
    origins
}

/// What no two disks have in common.
struct Taken {
    luns: HashSet<FoundLun>,
    names: HashSet<DiskName>,
    sockets: HashSet<PathBuf>,
}

impl Taken {
    fn of(disks: &[ServedDisk]) -> Self {
        Self {
            luns: disks.iter().map(FoundLun::of).collect(),
            names: disks.iter().map(|served| served.name.clone()).collect(),
            sockets: disks
                .iter()
                .filter_map(socket)
                .map(Path::to_owned)
                .collect(),
        }
    }

    /// # Errors
    /// What is another's already.
    fn claim(&mut self, disk: &ServedDisk) -> Result<(), &'static str> {
        if self.names.contains(&disk.name) {
            return Err("name");
        }
        if socket(disk).is_some_and(|path| self.sockets.contains(path)) {
            return Err("socket");
        }
        self.names.insert(disk.name.clone());
        self.sockets.extend(socket(disk).map(Path::to_owned));
        Ok(())
    }
}

fn socket(disk: &ServedDisk) -> Option<&Path> {
    match &disk.socket {
        SocketSettings::Path(settings) => Some(settings.path.as_path()),
        SocketSettings::Fd(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{NamePattern, SocketDirectory, TargetFilter};
    use crate::control::test_disk::disk;

    fn name(text: &str) -> IscsiName {
        IscsiName::parse(&format!("iqn.2001-04.com.example:{text}")).unwrap()
    }

    fn portal(address: &str) -> PortalSettings {
        let common = disk("common");
        let SocketSettings::Path(common_socket) = common.socket else {
            panic!("a path");
        };
        PortalSettings {
            address: Portal::parse(address).unwrap(),
            filter: TargetFilter::default(),
            rediscover: Duration::from_secs(60),
            socket_directory: SocketDirectory::new("/run".into()).unwrap(),
            common: common.disk,
            common_socket,
        }
    }

    fn lun(target: &str, lun: u16) -> FoundLun {
        let target = name(target);
        FoundLun { target, lun }
    }

    fn luns(address: &str, luns: &[(&str, u16)]) -> FoundLuns {
        let portal = Portal::parse(address).unwrap();
        let luns = luns.iter();
        luns.map(|(target, number)| (lun(target, *number), portal.clone()))
            .collect()
    }

    fn urls(selection: &Selection) -> Vec<String> {
        let disks = selection.disks.iter();
        disks.map(|disk| disk.disk.target.to_string()).collect()
    }

    #[test]
    fn what_is_found_at_two_portals_is_one_disk_of_the_first_or_of_where_it_is_served() {
        let (a, b) = (portal("a"), portal("b"));
        let at_a = luns("a", &[("x", 1), ("y", 1)]);
        let at_b = luns("b", &[("x", 1), ("z", 1)]);
        let both = [(&a, &at_a), (&b, &at_b)];
        let first = select(&both, &[], &BTreeMap::new());
        let url = |portal: &str, target| format!("iscsi://{portal}:3260/{}/1", name(target));
        assert_eq!(urls(&first), [url("a", "x"), url("a", "y"), url("b", "z")]);
        // Portal a is away at first: x is served from b, and stays there.
        let nothing = FoundLuns::new();
        let without_a = select(&[(&a, &nothing), (&b, &at_b)], &[], &BTreeMap::new());
        let later = select(&both, &[], &without_a.origins);
        assert_eq!(urls(&later), [url("b", "x"), url("a", "y"), url("b", "z")]);
        assert_eq!(later.of_portal(1).count(), 2);
        // It vanishes there: the other one has it still.
        let without_b = select(&[(&a, &at_a), (&b, &nothing)], &[], &later.origins);
        assert_eq!(urls(&without_b), [url("a", "x"), url("a", "y")]);
    }

    #[test]
    fn a_configured_disk_wins_by_its_lun_name_or_socket() {
        let a = portal("a");
        let found = luns("a", &[("x", 1), ("x", 2), ("y", 1), ("z", 1)]);
        let all = select(&[(&a, &found)], &[], &BTreeMap::new()).disks;
        let mut configured: Vec<_> = all.iter().take(3).cloned().collect();
        // The same LUN by another name; then another LUN with the same name, and the same socket.
        configured[0].name = DiskName::new("mine").unwrap();
        configured[0].socket = SocketSettings::Fd(3);
        configured[1].disk.target.lun = 77;
        configured[1].socket = SocketSettings::Fd(4);
        configured[2].disk.target.lun = 78;
        configured[2].name = DiskName::new("another").unwrap();
        let selection = select(&[(&a, &found)], &configured, &BTreeMap::new());
        assert_eq!(urls(&selection), [all[3].disk.target.to_string()]);
        let said = selection.left_out_of(0);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("has the name") && said[1].contains("has the socket"),
            "{said:?}"
        );
    }

    #[test]
    fn a_filter_counts_at_once_also_for_what_was_found_before() {
        let mut a = portal("a");
        let found = luns("a", &[("x", 1), ("y", 1)]);
        a.filter.exclude = vec![NamePattern::new("*:x").unwrap()];
        let selection = select(&[(&a, &found)], &[], &BTreeMap::new());
        assert_eq!(selection.origins.keys().collect::<Vec<_>>(), [&lun("y", 1)]);
    }

    #[test]
    fn there_is_an_end_to_disks_and_those_that_are_served_are_the_last_to_go() {
        let a = portal("a");
        let mut found = FoundLuns::new();
        for number in 0..=MAX_DISKS {
            let number = u16::try_from(number).unwrap();
            found.extend(luns("a", &[("x", number)]));
        }
        let last = lun("x", u16::try_from(MAX_DISKS).unwrap());
        let former = [(last.clone(), 0)].into();
        let selection = select(&[(&a, &found)], &[], &former);
        assert_eq!(selection.disks.len(), MAX_DISKS);
        assert!(selection.origins.contains_key(&last));
        assert!(selection.left_out_of(0)[0].starts_with("1 disks"));
    }
}
