//! One discovery: from the address of a portal to the disks behind it.
//!
//! What a stranger answers is bounded, and no answer of one target changes what is known of another.

use std::collections::BTreeMap;

use iscsi_core::name::IscsiName;
use tokio::task::JoinSet;

use super::discover::{SendTargets, send_targets};
use super::error::ControlError;
use super::target_luns::{MAX_LUNS, TargetLuns, target_luns};
use crate::config::{InitiatorSettings, MAX_DISKS, PortalSettings};
use crate::found::{Discovered, FoundLun, FoundLuns};
use crate::portal::Portal;

/// How much a portal may send: tens of thousands of targets.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The most targets of a portal that are looked at.
const MAX_TARGETS: usize = MAX_DISKS;

/// The most portals of a target that are tried, one after the other: some lead nowhere from here.
const MAX_ADDRESSES: usize = 4;

/// How many targets are asked at once: one that does not answer costs a login time-out.
const MAX_LOGINS: usize = 8;

/// Asks the portal for its targets, and each of them for its LUNs. `known` is what was found before:
/// a target that is listed and cannot be asked keeps what it had.
///
/// # Errors
/// When the portal does not say which targets it has: nothing is known then.
pub(super) async fn find_disks(
    settings: &PortalSettings,
    known: &FoundLuns,
) -> Result<Discovered, ControlError> {
    let initiator = settings.initiator();
    let answer = send_targets(&settings.address, initiator, MAX_ANSWER_BYTES).await?;
    let mut targets = wanted(settings, &answer, known);
    let mut gathering = Gathering {
        known,
        discovered: Discovered {
            targets: targets.len(),
            ..Discovered::default()
        },
        new: FoundLuns::new(),
    };
    let surplus = targets.len().saturating_sub(MAX_TARGETS);
    if surplus > 0 {
        cut_targets(&mut targets, known);
        gathering.discovered.cuts.push(format!(
            "{surplus} targets are not looked at: {MAX_TARGETS} of a portal are; include and \
             exclude choose"
        ));
    }
    for (target, answer) in ask_all(targets, initiator).await {
        match answer {
            Ok((portal, luns)) => gathering.answered(&target, &portal, &luns),
            Err(reason) => gathering.failed(target, reason),
        }
    }
    Ok(gathering.finish())
}

/// Where to log in to each target that counts, the best first.
fn wanted(
    settings: &PortalSettings,
    answer: &SendTargets,
    known: &FoundLuns,
) -> BTreeMap<IscsiName, Vec<Portal>> {
    let mut targets: BTreeMap<IscsiName, Vec<Portal>> = BTreeMap::new();
    for target in &answer.targets {
        if settings.filter.wants(&target.name) {
            let portals = answer.portals(target).filter_map(Result::ok);
            let portals = portals.map(|(portal, _)| portal);
            targets
                .entry(target.name.clone())
                .or_default()
                .extend(portals);
        }
    }
    for (target, portals) in &mut targets {
        let preferred = [
            // A disk that is served stays where it is, as long as that is listed.
            known_portal(known, target).cloned(),
            Some(settings.address.clone()),
            Some(answer.portal.clone()),
            answer.address.map(Portal::from),
        ];
        order(portals, preferred.into_iter().flatten());
    }
    targets
}

fn known_portal<'a>(known: &'a FoundLuns, target: &IscsiName) -> Option<&'a Portal> {
    known_luns(known, target).next().map(|(_, portal)| portal)
}

fn known_luns<'a>(
    known: &'a FoundLuns,
    target: &IscsiName,
) -> impl Iterator<Item = (&'a FoundLun, &'a Portal)> {
    let lun = |lun| FoundLun {
        target: target.clone(),
        lun,
    };
    known.range(lun(0)..=lun(u16::MAX))
}

/// Puts those that are preferred to the front, as far as they are listed, and leaves out what is
/// there twice, and what is too much.
fn order(portals: &mut Vec<Portal>, preferred: impl Iterator<Item = Portal>) {
    let listed = preferred.filter(|portal| portals.contains(portal));
    let all: Vec<_> = listed.collect();
    let mut ordered: Vec<Portal> = Vec::new();
    for portal in all.into_iter().chain(portals.drain(..)) {
        if ordered.len() < MAX_ADDRESSES && !ordered.contains(&portal) {
            ordered.push(portal);
        }
    }
    *portals = ordered;
}

/// Keeps those of which disks are known, then the first by name.
fn cut_targets(targets: &mut BTreeMap<IscsiName, Vec<Portal>>, known: &FoundLuns) {
    let all = std::mem::take(targets);
    let (old, new): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(target, _)| known_portal(known, target).is_some());
    targets.extend(old.into_iter().chain(new).take(MAX_TARGETS));
}

type Answers = BTreeMap<IscsiName, Result<(Portal, TargetLuns), String>>;

async fn ask_all(
    targets: BTreeMap<IscsiName, Vec<Portal>>,
    initiator: &InitiatorSettings,
) -> Answers {
    let mut answers = Answers::new();
    let mut asked = JoinSet::new();
    for (target, portals) in targets {
        if asked.len() >= MAX_LOGINS
            && let Some(Ok((target, answer))) = asked.join_next().await
        {
            answers.insert(target, answer);
        }
        let initiator = initiator.clone();
        asked.spawn(async move {
            let answer = ask(&portals, &target, &initiator).await;
            (target, answer)
        });
    }
    while let Some(answered) = asked.join_next().await {
        // A panic ends the process before this.
        answers.extend(answered);
    }
    answers
}

/// Asks at the first portal that answers; what it says counts, also that it does not let us in.
async fn ask(
    portals: &[Portal],
    target: &IscsiName,
    initiator: &InitiatorSettings,
) -> Result<(Portal, TargetLuns), String> {
    let mut reason = None;
    for portal in portals {
        match target_luns(portal, target, initiator).await {
            Ok(luns) => return Ok((portal.clone(), luns)),
            Err(error) => reason = reason.or(Some(error.to_string())),
        }
    }
    Err(reason.unwrap_or_else(|| "it is listed without an address that can be used".to_owned()))
}

/// What the answers amount to, together with what was known before.
struct Gathering<'a> {
    known: &'a FoundLuns,
    discovered: Discovered,
    /// What was not known before. There may be no room for all of it.
    new: FoundLuns,
}

impl Gathering<'_> {
    /// A target has said what it has.
    fn answered(&mut self, target: &IscsiName, portal: &Portal, luns: &TargetLuns) {
        if luns.left_out > 0 {
            self.discovered.cuts.push(format!(
                "{} LUNs of {target} are not looked at: {MAX_LUNS} of a target are",
                luns.left_out
            ));
        }
        for lun in &luns.disks {
            let found = FoundLun {
                target: target.clone(),
                lun: *lun,
            };
            if self.known.contains_key(&found) {
                self.discovered.luns.insert(found, portal.clone());
            } else if self.new.len() <= MAX_DISKS {
                self.new.insert(found, portal.clone());
            }
        }
        let silent = known_luns(self.known, target)
            .filter(|(found, _)| luns.unknown.contains(&found.lun))
            .map(|(found, _)| (found.clone(), portal.clone()));
        self.discovered.luns.extend(silent);
    }

    /// A target could not be asked: it keeps what it had.
    fn failed(&mut self, target: IscsiName, reason: String) {
        let kept = known_luns(self.known, &target);
        let kept = kept.map(|(found, portal)| (found.clone(), portal.clone()));
        self.discovered.luns.extend(kept);
        self.discovered.troubles.insert(target, reason);
    }

    fn finish(self) -> Discovered {
        let Self {
            mut discovered,
            new,
            ..
        } = self;
        let room = MAX_DISKS.saturating_sub(discovered.luns.len());
        if new.len() > room {
            discovered.cuts.push(format!(
                "there are more than {MAX_DISKS} disks, and the others are left out; include and \
                 exclude choose"
            ));
        }
        discovered.luns.extend(new.into_iter().take(room));
        discovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> IscsiName {
        IscsiName::parse(&format!("iqn.2001-04.com.example:{name}")).unwrap()
    }

    fn portal(text: &str) -> Portal {
        Portal::parse(text).unwrap()
    }

    fn found(luns: &[(&str, u16)]) -> FoundLuns {
        let found = |(name, lun): &(&str, u16)| {
            let target = target(name);
            (FoundLun { target, lun: *lun }, portal("old"))
        };
        luns.iter().map(found).collect()
    }

    fn luns(disks: &[u16], unknown: &[u16]) -> TargetLuns {
        TargetLuns {
            disks: disks.to_vec(),
            unknown: unknown.to_vec(),
            left_out: 0,
        }
    }

    fn gathering(known: &FoundLuns) -> Gathering<'_> {
        Gathering {
            known,
            discovered: Discovered::default(),
            new: FoundLuns::new(),
        }
    }

    fn names(discovered: &Discovered) -> Vec<(String, u16)> {
        let luns = discovered.luns.keys();
        luns.map(|found| {
            let (_, name) = found.target.as_str().rsplit_once(':').unwrap();
            (name.to_owned(), found.lun)
        })
        .collect()
    }

    #[test]
    fn only_what_a_target_denies_is_gone() {
        let known = found(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1)]);
        let mut gathering = gathering(&known);
        // LUN 3 does not say what it is, LUN 4 neither, and that one was not known.
        gathering.answered(&target("a"), &portal("new"), &luns(&[1, 5], &[3, 4]));
        gathering.failed(target("b"), "it is away".to_owned());
        let discovered = gathering.finish();
        let names = names(&discovered);
        let names: Vec<_> = names
            .iter()
            .map(|(name, lun)| (name.as_str(), *lun))
            .collect();
        assert_eq!(names, [("a", 1), ("a", 3), ("a", 5), ("b", 1)]);
        assert_eq!(discovered.troubles[&target("b")], "it is away");
        let portals: Vec<_> = discovered.luns.values().map(ToString::to_string).collect();
        assert_eq!(portals, ["new:3260", "new:3260", "new:3260", "old:3260"]);
    }

    #[test]
    fn there_is_an_end_to_what_is_found_and_what_is_known_stays() {
        let known = found(&[("z", 1)]);
        let mut gathering = gathering(&known);
        let many: Vec<_> = (0..1000).collect();
        for name in ["a", "b"] {
            gathering.answered(&target(name), &portal("new"), &luns(&many, &[]));
        }
        gathering.answered(&target("z"), &portal("new"), &luns(&[1], &[]));
        assert!(gathering.new.len() <= MAX_DISKS + 1);
        let discovered = gathering.finish();
        assert_eq!(discovered.luns.len(), MAX_DISKS);
        assert!(
            known
                .keys()
                .all(|found| discovered.luns.contains_key(found))
        );
        assert_eq!(discovered.cuts.len(), 1);
    }

    #[test]
    fn the_portal_that_was_asked_comes_first_if_it_is_listed() {
        let listed = ["b", "c", "b", "asked", "d", "e", "f"].map(portal);
        let mut portals = listed.to_vec();
        order(
            &mut portals,
            [portal("asked"), portal("not-listed")].into_iter(),
        );
        let order: Vec<_> = portals.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["asked:3260", "b:3260", "c:3260", "d:3260"]);
    }

    #[test]
    fn targets_whose_disks_are_known_are_the_last_to_be_cut() {
        let known = found(&[("z", 1)]);
        let all = (0..2000).map(|n| target(&format!("a{n:04}")));
        let all = all.chain([target("z")]);
        let mut targets = all.map(|target| (target, vec![portal("p")])).collect();
        cut_targets(&mut targets, &known);
        assert_eq!(targets.len(), MAX_TARGETS);
        assert!(targets.contains_key(&target("z")) && targets.contains_key(&target("a0000")));
        assert!(!targets.contains_key(&target("a1999")));
    }
}
