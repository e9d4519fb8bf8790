//! Who runs what: a pure function of the roll, so that all hosts that see the same rows decide the same.
//!
//! * Each partition of each stage goes to one host that runs the stage.
//! * The hosts of a stage get equal numbers of its partitions, give or take one; who gets one more is who has least of the
//!   stages before, by name. So stages of one partition spread over the hosts too.
//! * What a host holds it keeps, as far as that allows: a host that joins or leaves moves no more than its share.

use std::collections::BTreeMap;

use crate::ids::{HostId, Partition};
use crate::log::hosts::{Roll, Slot};

/// The host of each slot.
pub fn assign(roll: &Roll) -> BTreeMap<Slot, HostId> {
    let mut partitions: BTreeMap<&str, u32> = BTreeMap::new();
    for (stage, count) in roll.hosts.values().flatten() {
        let known = partitions.entry(stage).or_default();
        *known = (*known).max(*count);
    }
    let mut load: BTreeMap<&HostId, u32> = BTreeMap::new();
    let mut assigned = BTreeMap::new();
    for (stage, count) in partitions {
        for (partition, host) in share_out(roll, stage, count, &load).into_iter().enumerate() {
            *load.entry(host).or_default() += 1;
            // As many as `count`, which is a u32.
            let partition = partition as Partition;
            assigned.insert(Slot { stage: stage.to_owned(), partition }, host.clone());
        }
    }
    assigned
}

/// The hosts of a stage's partitions, in order.
fn share_out<'a>(
    roll: &'a Roll,
    stage: &str,
    count: u32,
    load: &BTreeMap<&'a HostId, u32>,
) -> Vec<&'a HostId> {
    let mut hosts: Vec<&HostId> =
        roll.hosts.iter().filter(|(_, stages)| stages.contains_key(stage)).map(|(host, _)| host).collect();
    let holder = |partition| {
        let held = roll.held.get(&Slot { stage: stage.to_owned(), partition })?;
        hosts.iter().copied().find(|host| *host == held)
    };
    let holders: Vec<Option<&HostId>> = (0..count).map(holder).collect();
    let holds = |host: &HostId| holders.iter().filter(|holder| **holder == Some(host)).count() as u32;
    let each = count / hosts.len().max(1) as u32;
    let mut more = count % hosts.len().max(1) as u32;
    // Those that come first get one more than the others.
    hosts.sort_by_key(|host| (load.get(host).copied().unwrap_or(0), std::cmp::Reverse(holds(host)), *host));
    let mut quota: BTreeMap<&HostId, u32> = BTreeMap::new();
    for host in &hosts {
        quota.insert(host, each + u32::from(more > 0));
        more = more.saturating_sub(1);
    }
    let mut take = |host: &'a HostId| {
        let left = quota.get_mut(host).filter(|left| **left > 0)?;
        *left -= 1;
        Some(host)
    };
    let kept: Vec<Option<&HostId>> = holders.iter().map(|holder| holder.and_then(&mut take)).collect();
    kept.into_iter().filter_map(|kept| kept.or_else(|| hosts.iter().find_map(|host| take(host)))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn host(name: u32) -> HostId {
        HostId(format!("h{name}").into())
    }

    /// Any hosts with any of five stages, holding anything.
    fn rolls() -> impl Strategy<Value = Roll> {
        let sizes = [1, 1, 4, 7, 12];
        let hosts =
            prop::collection::btree_map(0_u32..6, prop::collection::btree_set(0_usize..5, 0..=5), 0..6);
        let held = prop::collection::btree_map((0_usize..5, 0_u32..12), 0_u32..7, 0..40);
        (hosts, held).prop_map(move |(hosts, held)| Roll {
            hosts: hosts
                .into_iter()
                .map(|(name, stages)| {
                    (host(name), stages.into_iter().map(|s| (stage(s), sizes[s])).collect())
                })
                .collect(),
            held: held
                .into_iter()
                .map(|((s, partition), name)| (Slot { stage: stage(s), partition }, host(name)))
                .collect(),
        })
    }

    fn stage(number: usize) -> String {
        format!("p/s{number}")
    }

    fn counts<'a>(
        assigned: impl Iterator<Item = (&'a Slot, &'a HostId)>,
        of: impl Iterator<Item = &'a HostId>,
    ) -> BTreeMap<&'a HostId, usize> {
        let mut counts: BTreeMap<_, _> = of.map(|host| (host, 0)).collect();
        for (_, host) in assigned {
            *counts.entry(host).or_default() += 1;
        }
        counts
    }

    fn spread(counts: &BTreeMap<&HostId, usize>) -> usize {
        counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
    }

    proptest! {
        #[test]
        fn every_partition_has_one_host_that_can_run_it_and_shares_are_fair(roll in rolls()) {
            let assigned = assign(&roll);
            let all: BTreeSet<Slot> = roll.hosts.values().flatten()
                .flat_map(|(stage, count)| (0..*count).map(|partition| Slot { stage: stage.clone(), partition }))
                .collect();
            prop_assert_eq!(assigned.keys().cloned().collect::<BTreeSet<_>>(), all);
            for number in 0..5 {
                let stage = stage(number);
                let able = roll.hosts.iter().filter(|(_, stages)| stages.contains_key(&stage)).map(|(host, _)| host);
                let able: BTreeSet<_> = able.collect();
                let of_stage = assigned.iter().filter(|(slot, _)| slot.stage == stage);
                prop_assert!(of_stage.clone().all(|(_, host)| able.contains(host)));
                prop_assert!(spread(&counts(of_stage, able.into_iter())) <= 1);
            }
        }

        #[test]
        fn hosts_with_the_same_stages_have_equal_loads_over_all(hosts in 1_u32..6, held in rolls()) {
            let stages: BTreeMap<String, u32> = (0..9).map(|n| (stage(n), [1, 1, 1, 4, 1, 7, 1, 1, 12][n])).collect();
            let roll = Roll { hosts: (0..hosts).map(|n| (host(n), stages.clone())).collect(), held: held.held };
            let assigned = assign(&roll);
            prop_assert!(spread(&counts(assigned.iter(), roll.hosts.keys())) <= 1);
        }

        #[test]
        fn what_was_decided_stays_decided(roll in rolls()) {
            let held = assign(&roll);
            let again = assign(&Roll { held: held.clone(), ..roll });
            prop_assert_eq!(again, held);
        }

        #[test]
        fn a_host_that_leaves_or_comes_back_moves_no_more_than_a_share(hosts in 2_u32..6, gone in 0_u32..6) {
            let stages = BTreeMap::from([(stage(3), 12)]);
            let all = Roll { hosts: (0..hosts).map(|n| (host(n), stages.clone())).collect(), ..Roll::default() };
            let before = assign(&all);
            let fewer = Roll {
                hosts: all.hosts.clone().into_iter().filter(|(name, _)| *name != host(gone % hosts)).collect(),
                held: before.clone(),
            };
            let moved = |a: &BTreeMap<Slot, HostId>, b: &BTreeMap<Slot, HostId>| {
                a.iter().filter(|(slot, host)| b[slot] != **host).count() as u32
            };
            let without = assign(&fewer);
            prop_assert!(moved(&before, &without) <= 12_u32.div_ceil(hosts));
            let with = assign(&Roll { hosts: all.hosts, held: without.clone() });
            prop_assert!(moved(&without, &with) <= 12_u32.div_ceil(hosts));
        }
    }

    #[test]
    fn stages_of_one_partition_spread_over_the_hosts() {
        let stages: BTreeMap<String, u32> = (0..4).map(|n| (stage(n), 1)).collect();
        let held = (0..4).map(|n| (Slot { stage: stage(n), partition: 0 }, host(0))).collect();
        let roll = Roll { hosts: BTreeMap::from([(host(0), stages.clone()), (host(1), stages)]), held };
        let assigned = assign(&roll);
        let of_first = assigned.values().filter(|it| **it == host(0)).count();
        assert_eq!(of_first, 2, "{assigned:?}");
    }
}
