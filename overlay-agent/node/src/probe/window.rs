//! Which of the last questions were answered.

use std::time::Duration;

/// Questions over which loss is counted.
pub(crate) const WINDOW: u32 = 100;
/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The most questions that can be under way: the rest of the bits.
const MOST_UNDER_WAY: u32 = u128::BITS - WINDOW;

/// A bit for each question, that of the last one lowest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    asked: u32,
    answered: u128,
    /// The questions before the first that was answered: nobody was there to hear them.
    unheard: Option<u32>,
}

/// How many of so many were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) asked: u32,
    pub(crate) lost: u32,
}

impl Window {
    /// Notes one more question; its number.
    pub(crate) fn ask(&mut self) -> u32 {
        // Numbers come again after a lifetime; the window is long over by then.
        self.asked = self.asked.wrapping_add(1);
        self.answered <<= 1;
        self.asked
    }

    /// Notes an answer; false when it is none to a question of the window, or the second one.
    pub(crate) fn answer(&mut self, number: u32) -> bool {
        let age = self.asked.wrapping_sub(number);
        if age >= u128::BITS.min(self.asked) {
            return false;
        }
        self.unheard.get_or_insert(number - 1);
        let bit = 1 << age;
        let new = self.answered & bit == 0;
        self.answered |= bit;
        new
    }

    /// The outcomes of the questions that were answered or timed out, one in each `interval`.
    pub(crate) fn loss(&self, interval: Duration) -> Loss {
        let under_way = PATIENCE.as_nanos().div_ceil(interval.as_nanos().max(1));
        let under_way =
            u32::try_from(under_way).map_or(MOST_UNDER_WAY, |count| count.min(MOST_UNDER_WAY));
        let heard = self.asked.saturating_sub(self.unheard.unwrap_or_default());
        let asked = heard.saturating_sub(under_way).min(WINDOW);
        let mask = u128::MAX
            .checked_shr(u128::BITS - asked)
            .map_or(0, |mask| mask << under_way);
        let answered = (self.answered & mask).count_ones();
        Loss {
            asked,
            lost: asked - answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn questions_under_way_are_not_lost_yet() {
        let mut window = Window::default();
        assert_eq!(window.loss(SECOND), Loss::default());
        window.ask();
        assert_eq!(window.loss(SECOND), Loss::default());
        window.ask();
        assert_eq!(window.loss(SECOND), Loss { asked: 1, lost: 1 });
        assert!(window.answer(1));
        assert_eq!(window.loss(SECOND), Loss { asked: 1, lost: 0 });
    }

    #[test]
    fn each_answer_counts_once_and_only_to_a_question() {
        let mut window = Window::default();
        assert!(!window.answer(0));
        assert!(!window.answer(1), "never asked");
        let first = window.ask();
        assert!(window.answer(first));
        assert!(!window.answer(first), "twice");
        assert!(!window.answer(first + 1), "not asked yet");
        for _ in 0..200 {
            window.ask();
        }
        assert!(!window.answer(first), "long ago");
    }

    #[test]
    fn the_last_hundred_count() {
        let mut window = Window::default();
        for number in 1..=300 {
            assert_eq!(window.ask(), number);
            if number % 4 != 0 {
                assert!(window.answer(number));
            }
        }
        for interval in [SECOND / 10, SECOND, 60 * SECOND] {
            let expected = Loss {
                asked: 100,
                lost: 25,
            };
            assert_eq!(window.loss(interval), expected);
        }
    }

    #[test]
    fn what_was_asked_before_anybody_was_there_is_not_lost() {
        let mut window = Window::default();
        for _ in 0..50 {
            window.ask();
        }
        assert_eq!(
            window.loss(SECOND),
            Loss {
                asked: 49,
                lost: 49
            }
        );
        let first = window.ask();
        assert!(window.answer(first));
        window.ask();
        window.ask();
        assert_eq!(window.loss(SECOND), Loss { asked: 2, lost: 1 });
    }

    #[test]
    fn numbers_may_come_again() {
        let mut window = Window {
            asked: u32::MAX - 1,
            answered: u128::MAX,
            unheard: Some(0),
        };
        for _ in 0..4 {
            let number = window.ask();
            assert!(number == 0 || window.answer(number));
        }
    }
}
