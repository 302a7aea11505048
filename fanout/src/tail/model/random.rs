//! Random interleavings of everything that can happen.

use proptest::prelude::*;

use super::*;

/// Everything that can happen, with who it happens to.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    SendDirect(usize, usize),
    Burst(usize),
    Add(usize),
    Remove(usize),
    Announce(usize),
    Answer(usize),
    Detach(usize),
    Dispatch,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0usize..4;
    let device = 0usize..6;
    let step = prop_oneof![
        4 => user.clone().prop_map(Step::Send),
        3 => (user.clone(), user.clone()).prop_map(|(a, b)| Step::SendDirect(a, b)),
        2 => user.clone().prop_map(Step::Burst),
        3 => user.clone().prop_map(Step::Add),
        3 => (1usize..4).prop_map(Step::Remove),
        5 => device.clone().prop_map(Step::Announce),
        4 => device.clone().prop_map(Step::Answer),
        3 => device.prop_map(Step::Detach),
        9 => Just(Step::Dispatch),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 0..80)
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Send(sender) => self.send(self.group, sender),
            Step::SendDirect(a, b) => {
                let direct = self.open_direct(a, b);
                self.send(direct, a);
            }
            Step::Burst(sender) => {
                // One entry: messages to the group, a return of its sender between them, and one more.
                let mut commands: Vec<Command> = (0..3).map(|_| self.message(self.group, sender)).collect();
                let request = self.id();
                let (group, actor, user) = (self.group, self.users[0], self.users[sender]);
                let remove = if sender == 0 { vec![] } else { vec![user] };
                commands.push(Command::GroupChange(GroupChange::new(group, actor, request, vec![], remove)));
                commands.push(self.message(self.group, 0));
                self.apply_all(commands);
            }
            Step::Add(user) => self.add(user),
            Step::Remove(user) => self.remove(user),
            Step::Announce(device) => {
                self.detach(device);
                self.announce(device);
            }
            Step::Answer(device) => self.answer(device),
            Step::Detach(device) => self.detach(device),
            Step::Dispatch => drop(self.dispatch()),
            Step::Reset => self.reset(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn every_device_gets_what_its_user_may_see_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        let (ben, cam) = (world.users[1], world.users[2]);
        world.device(ben);
        world.device(cam);
        for step in steps {
            world.step(step);
        }
        world.settle();
        for device in 0..world.devices.len() {
            if world.devices[device].connection.is_none() {
                world.announce(device);
            }
        }
        world.settle();
    }
}
