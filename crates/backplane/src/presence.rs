//! Who is present in a group: members that beat, and get on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many members a group can have; a further one is not counted.
pub(crate) const MOST_MEMBERS: usize = 200_000;
/// So many members all groups of one process can have, and so many groups.
const MOST_MEMBERS_IN_ALL: usize = 400_000;
const MOST_GROUPS: usize = 2_000;

/// How long what is known of a group lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting {
    /// A member is present for so long after it last got on; after its last beat so long ago it is forgotten.
    pub member: Duration,
    /// How many there were in all is forgotten so long after the last beat of any.
    pub group: Duration,
}

/// What a beat has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Whether the member is present: it has got on since the beat before, or did so a moment ago.
    pub is_present: bool,
    /// How many members of the group are.
    pub present: u64,
}

/// How a group is attended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attendance {
    /// Members that are present.
    pub present: u64,
    /// Members that ever were. Beyond some hundreds an estimate, a percent off.
    pub unique: u64,
    /// How long they were, all together, since this was last asked: whole seconds, the rest is told the next time.
    pub seconds: u64,
}

/// The groups of a single process.
#[derive(Default)]
pub(crate) struct Groups {
    groups: HashMap<String, Group>,
    /// Of all groups.
    members: usize,
}

struct Group {
    members: HashMap<Arc<str>, Member>,
    /// When each member's state changes by itself, the soonest first.
    due: BTreeSet<(Instant, Arc<str>)>,
    present: u64,
    unique: Sketch,
    attended: Duration,
    expires: Instant,
}

struct Member {
    position_ms: u64,
    seen_at: Instant,
    /// Its entry in `due`: until then it is present if `is_present`, else remembered.
    due_at: Instant,
    is_present: bool,
}

impl Groups {
    pub(crate) fn beat(&mut self, group: &str, member: &str, position_ms: u64, lasting: Lasting, now: Instant) -> Beat {
        if self.members >= MOST_MEMBERS_IN_ALL || (self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(group))
        {
            self.sweep(lasting, now);
        }
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(group) {
            return Beat { is_present: false, present: 0 };
        }
        let is_full = self.members >= MOST_MEMBERS_IN_ALL;
        let group = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(now));
        let before = group.members.len();
        group.expires = now + lasting.group;
        let beat = group.beat(member, position_ms, lasting, is_full, now);
        self.members = self.members + group.members.len() - before;
        beat
    }

    pub(crate) fn attendance(&mut self, groups: &[String], lasting: Lasting, now: Instant) -> Vec<Attendance> {
        let attendance = groups.iter().map(|name| {
            let Some(group) = self.groups.get_mut(name) else { return Attendance::default() };
            let before = group.members.len();
            group.settle(lasting, now);
            self.members = self.members + group.members.len() - before;
            let seconds = group.attended.as_secs();
            group.attended -= Duration::from_secs(seconds);
            Attendance { present: group.present, unique: group.unique.count(), seconds }
        });
        attendance.collect()
    }

    /// Forgets who has left, and groups that nobody beats in any more.
    fn sweep(&mut self, lasting: Lasting, now: Instant) {
        self.groups.retain(|_, group| {
            group.settle(lasting, now);
            group.expires > now
        });
        self.members = self.groups.values().map(|group| group.members.len()).sum();
    }
}

impl Group {
    fn new(now: Instant) -> Self {
        Self {
            members: HashMap::new(),
            due: BTreeSet::new(),
            present: 0,
            unique: Sketch::default(),
            attended: Duration::ZERO,
            expires: now,
        }
    }

    fn beat(&mut self, name: &str, position_ms: u64, lasting: Lasting, is_full: bool, now: Instant) -> Beat {
        self.settle(lasting, now);
        let is_full = is_full || self.members.len() >= MOST_MEMBERS;
        let name: Arc<str> = name.into();
        let member = match self.members.entry(Arc::clone(&name)) {
            Entry::Vacant(_) if is_full => return Beat { is_present: false, present: self.present },
            Entry::Vacant(place) => {
                let member = Member { position_ms, seen_at: now, due_at: now + lasting.member, is_present: false };
                self.due.insert((member.due_at, name));
                place.insert(member);
                return Beat { is_present: false, present: self.present };
            }
            Entry::Occupied(place) => place.into_mut(),
        };
        let elapsed = now.saturating_duration_since(member.seen_at);
        let advance = Duration::from_millis(position_ms.saturating_sub(member.position_ms));
        (member.position_ms, member.seen_at) = (position_ms, now);
        let gets_on = !advance.is_zero();
        if gets_on {
            self.attended += elapsed.min(advance).min(lasting.member);
            self.unique.add(&name);
            self.present += u64::from(!member.is_present);
            member.is_present = true;
        }
        if gets_on || !member.is_present {
            self.due.remove(&(member.due_at, Arc::clone(&name)));
            member.due_at = now + lasting.member;
            self.due.insert((member.due_at, name));
        }
        Beat { is_present: member.is_present, present: self.present }
    }

    /// Carries out what has become due: whoever did not get on is not present, whoever did not beat is forgotten.
    fn settle(&mut self, lasting: Lasting, now: Instant) {
        while let Some((due_at, _)) = self.due.first()
            && *due_at <= now
        {
            let Some((_, name)) = self.due.pop_first() else { return };
            let Some(member) = self.members.get_mut(&name) else { continue };
            if member.is_present {
                member.is_present = false;
                self.present -= 1;
            }
            let forgotten_at = member.seen_at + lasting.member;
            if forgotten_at <= now {
                self.members.remove(&name);
            } else {
                member.due_at = forgotten_at;
                self.due.insert((forgotten_at, name));
            }
        }
    }
}

/// Counts different names in little room (HyperLogLog): a byte for each of many parts that names fall into by their
/// hash, which keeps the longest row of zeros that was met there.
struct Sketch {
    /// Empty until the first name comes.
    longest: Vec<u8>,
    hasher: RandomState,
}

/// Which bits of a hash say the part.
const PART_BITS: u32 = 14;

impl Default for Sketch {
    fn default() -> Self {
        Self { longest: Vec::new(), hasher: RandomState::new() }
    }
}

impl Sketch {
    fn add(&mut self, name: &str) {
        if self.longest.is_empty() {
            self.longest = vec![0; 1 << PART_BITS];
        }
        let hash = self.hasher.hash_one(name);
        // The lowest bit is set, so that a row of zeros ends.
        let zeros = ((hash << PART_BITS) | 1).leading_zeros();
        let part = usize::try_from(hash >> (u64::BITS - PART_BITS)).unwrap_or_default();
        self.longest[part] = self.longest[part].max(u8::try_from(zeros + 1).unwrap_or(u8::MAX));
    }

    fn count(&self) -> u64 {
        if self.longest.is_empty() {
            return 0;
        }
        let parts = self.longest.len() as f64;
        let empty = self.longest.iter().filter(|zeros| **zeros == 0).count() as f64;
        let sum: f64 = self.longest.iter().map(|zeros| (-f64::from(*zeros)).exp2()).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / parts) * parts * parts / sum;
        // Of few names most are alone in their part, and the empty parts tell more.
        let count = if estimate <= 2.5 * parts && empty > 0.0 { parts * (parts / empty).ln() } else { estimate };
        count.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTING: Lasting = Lasting { member: Duration::from_secs(60), group: Duration::from_secs(3600) };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn attendance(groups: &mut Groups, now: Instant) -> Attendance {
        groups.attendance(&["g".to_owned()], LASTING, now)[0]
    }

    #[test]
    fn whoever_gets_on_is_present_for_its_time_and_whoever_does_not_never_is() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let mut beat = |member: &str, position_s: u64, at: u64| {
            groups.beat("g", member, position_s * 1000, LASTING, start + seconds(at))
        };
        assert_eq!(beat("ana", 5, 0), Beat { is_present: false, present: 0 });
        assert_eq!(beat("bot", 5, 0), Beat { is_present: false, present: 0 });
        assert_eq!(beat("ana", 25, 20), Beat { is_present: true, present: 1 });
        assert_eq!(beat("bot", 5, 20), Beat { is_present: false, present: 1 });
        assert_eq!(beat("ana", 25, 40), Beat { is_present: true, present: 1 }, "paused");
        assert_eq!(beat("ana", 25, 60), Beat { is_present: true, present: 1 });
        assert_eq!(beat("ana", 25, 80), Beat { is_present: false, present: 0 }, "paused for too long");
        assert_eq!(beat("ana", 20, 90), Beat { is_present: false, present: 0 }, "gone back");
        assert_eq!(beat("ana", 30, 100), Beat { is_present: true, present: 1 });
        let now = attendance(&mut groups, start + seconds(159));
        assert_eq!(now, Attendance { present: 1, unique: 1, seconds: 30 });
        let later = attendance(&mut groups, start + seconds(160));
        assert_eq!(later, Attendance { present: 0, unique: 1, seconds: 0 });
    }

    #[test]
    fn time_grows_by_no_more_than_passed_nor_than_was_played() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        let mut beat = |position_ms: u64, at_ms: u64| {
            groups.beat("g", "ana", position_ms, LASTING, start + Duration::from_millis(at_ms));
        };
        beat(0, 0);
        beat(1_000_000, 1500); // 1.5 s have passed
        for n in 1..100 {
            beat(1_000_000 + n, 1500); // no time has
        }
        beat(1_001_500, 20_000); // 1.4 s were played
        let now = start + seconds(21);
        assert_eq!(attendance(&mut groups, now).seconds, 2);
        groups.beat("g", "ana", 1_002_500, LASTING, start + Duration::from_millis(21_000));
        assert_eq!(attendance(&mut groups, now).seconds, 1, "what was left over of the last time, and a second");
        assert_eq!(attendance(&mut groups, now).seconds, 0);
    }

    #[test]
    fn counts_agree_with_a_plain_list_whatever_comes_in_whatever_order() {
        // A fixed sequence that looks random (Knuth's MMIX), so that a failure repeats.
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut groups, start) = (Groups::default(), Instant::now());
        let mut plain: HashMap<u64, (u64, u64, Option<u64>)> = HashMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            now += next(3);
            let (member, position) = (next(50), next(8) * 1000);
            plain.retain(|_, (_, seen, _)| *seen + 60 > now);
            match plain.get_mut(&member) {
                Some((last, seen, got_on)) => {
                    if position > *last {
                        *got_on = Some(now);
                    }
                    (*last, *seen) = (position, now);
                }
                None => drop(plain.insert(member, (position, now, None))),
            }
            let is_there = |got_on: &Option<u64>| got_on.is_some_and(|at| at + 60 > now);
            let present = plain.values().filter(|(_, _, got_on)| is_there(got_on)).count();
            let beat = groups.beat("g", &member.to_string(), position, LASTING, start + seconds(now));
            assert_eq!(beat.present, u64::try_from(present).unwrap());
            assert_eq!(beat.is_present, is_there(&plain[&member].2));
            let group = &groups.groups["g"];
            assert_eq!((group.members.len(), group.due.len()), (plain.len(), plain.len()));
            assert_eq!(groups.members, plain.len());
        }
    }

    #[test]
    fn groups_and_members_have_bounds_and_those_who_left_make_room() {
        let (mut groups, start) = (Groups::default(), Instant::now());
        for n in 0..MOST_GROUPS + 10 {
            groups.beat(&format!("g{n}"), "ana", 1, LASTING, start);
        }
        assert_eq!(groups.groups.len(), MOST_GROUPS);
        let later = start + LASTING.group;
        groups.beat("another", "ana", 1, LASTING, later);
        assert_eq!((groups.groups.len(), groups.members), (1, 1));

        for n in 0..MOST_MEMBERS + 10 {
            groups.beat("g", &n.to_string(), 1, LASTING, later);
        }
        assert_eq!(groups.members, MOST_MEMBERS + 1);
        let after = later + LASTING.member;
        groups.beat("g", "new", 1, LASTING, after);
        assert_eq!(groups.groups["g"].members.len(), 1);
    }

    #[test]
    fn many_names_are_counted_well_enough() {
        let mut sketch = Sketch::default();
        let mut added = 0_u64;
        for upto in [0, 1, 2, 10, 100, 1000, 20_000, 200_000] {
            for n in added..upto {
                sketch.add(&n.to_string());
                sketch.add(&n.to_string());
            }
            added = upto;
            let off = sketch.count().abs_diff(upto);
            // Far beyond what chance does: the standard error is 0.8 %.
            assert!(off <= upto / 20, "{} instead of {upto}", sketch.count());
        }
    }
}
