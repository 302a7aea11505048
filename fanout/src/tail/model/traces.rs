//! The shortest traces of the explicit-state model that concern a replica's side, with nothing following the record that
//! could be lost.

use super::*;

#[test]
fn a_leaver_gets_the_leave_record_and_nothing_after_it() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.remove(1);
    world.send(world.group, 0);
    world.settle();
    let leave = SeqId(2);
    assert_eq!(world.devices[1].got[&world.group].last(), Some(&leave));
}

#[test]
fn what_precedes_a_leave_is_sent_although_the_leave_is_applied_already() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.send(world.group, 0);
    world.remove(1);
    world.settle();
    assert_eq!(world.devices[1].got[&world.group], [1, 2, 3].map(SeqId));
}

#[test]
fn a_second_device_that_comes_after_a_leave_is_applied_takes_nothing_from_the_first() {
    let mut world = World::new();
    let second = world.device(world.users[1]);
    world.announce(1);
    world.answer(1);
    world.send(world.group, 0);
    world.remove(1);
    world.announce(second);
    world.answer(second);
    world.settle();
}

#[test]
fn a_message_between_announcement_and_answer_is_not_missed() {
    let mut world = World::new();
    world.announce(1);
    world.send(world.group, 0);
    world.dispatch_all();
    world.answer(1);
    world.settle();
}

#[test]
fn a_message_applied_before_and_dispatched_after_the_announcement_comes_once() {
    let mut world = World::new();
    world.send(world.group, 0);
    world.announce(1);
    world.dispatch_all();
    world.answer(1);
    world.settle();
}

#[test]
fn the_first_message_of_a_direct_opened_after_the_announcement_appears_by_itself() {
    let mut world = World::new();
    world.announce(2);
    world.answer(2);
    let direct = world.open_direct(0, 2);
    world.send(direct, 0);
    world.settle();
    assert_eq!(world.devices[2].got[&direct], [SeqId(1)]);
}

#[test]
fn a_group_joined_after_the_announcement_appears_by_itself() {
    let mut world = World::new();
    world.announce(3);
    world.answer(3);
    world.add(3);
    world.send(world.group, 0);
    world.settle();
    assert_eq!(world.devices[3].got[&world.group], [2, 3].map(SeqId));
}

#[test]
fn a_late_detach_of_the_old_connection_leaves_the_new_one_listening() {
    let mut world = World::new();
    let old = world.announce(1);
    world.answer(1);
    world.announce(1);
    world.answer(1);
    world.hub.lock().detach(old, world.users[1]);
    world.send(world.group, 0);
    world.settle();
}

#[test]
fn a_leave_lost_with_the_tail_shows_nothing_that_follows_it() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.remove(1);
    world.reset();
    world.send(world.group, 0);
    world.settle();
    assert_eq!(world.devices[1].got[&world.group].last(), Some(&SeqId(2)));
}

#[test]
fn a_return_has_its_gap_and_what_was_missed_offline_is_clipped_to_it() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.dispatch_all();
    world.detach(1);
    world.remove(1);
    world.send(world.group, 0);
    world.add(1);
    world.send(world.group, 0);
    world.announce(1);
    world.settle();
    assert_eq!(world.devices[1].got[&world.group], [1, 2, 4, 5].map(SeqId));
}

#[test]
fn ended_rows_that_changed_after_the_cursor_are_answered() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.detach(1);
    world.remove(1);
    world.announce(1);
    let connection = world.devices[1].connection.take().unwrap();
    let Stage::Pending { fence: Some(fence), .. } = connection.stage else { panic!("announced just now") };
    let attachment = block_on(fence.read(&Source { world: &world.records })).unwrap();
    assert_eq!(attachment.as_of, world.state.applied());
    let [row] = &attachment.rows[..] else { panic!("one row changed: {:?}", attachment.rows) };
    assert_eq!((row.active, row.head_seq, row.as_of), (false, SeqId(2), attachment.as_of));
}

#[test]
fn nothing_is_answered_to_a_device_without_news() {
    let mut world = World::new();
    world.announce(1);
    world.answer(1);
    world.detach(1);
    world.announce(1);
    let connection = world.devices[1].connection.take().unwrap();
    let Stage::Pending { fence: Some(fence), .. } = connection.stage else { panic!("announced just now") };
    let attachment = block_on(fence.read(&Source { world: &world.records })).unwrap();
    assert!(attachment.rows.is_empty() && attachment.records.is_empty());
}
