"""The words of Knights & Knaves answers, each with the letter of its class; the grammar is written in these letters.

A sentence becomes a string with one letter a word ("Ann is a knight" is `NvaR`), so that sentence forms are short
regular expressions. The words of a phrase are joined by `_`; a phrase takes precedence over the words in it. A key of
several letters puts several for a word. Words that are not here are `w`: unknown, and trusted with nothing.
"""

from __future__ import annotations

CLASSES: dict[str, str] = {
    # What statements consist of (N and R are people and role words; marks stand for themselves).
    "v": (  # copulas
        "comes_out_as come_out_as came_out_as \u662f\u4e00\u4e2a \u662f\u4e00\u540d "
        "should_be_classified should_be_identified is are was am be being been 's 're equals becomes become "
        "remains remain stays acts plays turns_out turn_out turned_out ends_up ended_up belongs_to belong_to "
        "has_the_role_of has_role has_the_role have_the_role_of plays_the_role_of counts_as qualifies_as "
        "serves_as falls_into belongs_in falls_under has_been have_been es ist est sind sont son \u662f \u4e3a "
        "\u70ba \u5c31\u662f \u90fd\u662f \u5747\u4e3a"
    ),
    "vn": "isn't aren't wasn't ain't \u4e0d\u662f",
    "n": (  # negations
        "nothing the_opposite don't doesn't didn't not never cannot can't couldn't isnt non anything_but "
        "the_opposite_of far_from hardly barely scarcely \u4e0d"
    ),
    "z": "no",  # 'no', settled by what follows
    "a": "our a an the un une el la ein eine \u4e00\u4e2a \u4e00\u540d",  # articles
    "f": (  # fillers that change nothing
        "will of_type namely moreover furthermore additionally then also indeed fact in_fact to clearly "
        "definitely certainly surely really truly necessarily always simply again who which finally now here must "
        "has_to have_to had_to needs_to need_to can_only could_only may_only has_got_to must_therefore himself "
        "herself themselves respectively with_certainty for_certain undoubtedly without_a_doubt without_doubt "
        "without_any_doubt no_doubt beyond_doubt beyond_a_doubt unquestionably there_is_no_doubt there's_no_doubt "
        "there_can_be_no_doubt absolutely obviously evidently plainly logically either_way in_either_case "
        "in_any_case in_all_cases in_both_cases in_each_case in_every_case one_by_one it's_settled if_any if_so "
        "if_needed inevitably automatically directly immediately ultimately accordingly first_of_all "
        "in_particular of_course for_sure as_a_result as_such as_for regarding concerning as_follows in_order "
        "to_sum_up_then next step so_far well okay ok yes great alright perfect as_required as_intended "
        "as_expected as_needed as_desired by_elimination by_necessity of_necessity by_definition in_reality "
        "in_truth with_no_doubt such_that where_as"
    ),
    "o": "only sole lone solely alone exclusively just merely",  # 'only'
    "A": "every_single each_single all each every everyone everybody todos alle",  # everyone
    "B": "both",  # both
    "Z": (  # nobody
        "none nobody neither no_one not_one not_a_one not_a_single_one not_any not_a_single nor_any"
    ),
    "O": "others rest everyone_else everybody_else anyone_else all_else remainder",  # the others
    "k": "other remaining",  # 'other', beside a noun
    "x": (  # exceptions
        "exception except except_for apart_from aside_from besides other_than excluding save save_for barring bar "
        "with_the_exception_of with_exception_of the_exception_being the_exception_is with_the_sole_exception_of "
        "not_counting but_for but_not"
    ),
    "F": "for in of among amongst out_of from_among between",  # prepositions of membership
    "g": (  # nouns for the people of the puzzle
        "them these those us people inhabitants inhabitant islanders islander persons person individuals "
        "individual characters character residents folks folk villagers villager members member speakers speaker "
        "ones on_the_island on_this_island in_the_group in_this_group of_the_group present men women "
        "of_the_island men_and_women"
    ),
    "0": "zero",
    "1": "one",
    "#": "two three four five six seven eight nine ten dos tres zwei drei",
    "m": (  # modifiers of a number
        "exactly at_least at_most no_more_than not_more_than more_than no_fewer_than no_less_than not_fewer_than "
        "fewer_than less_than precisely up_to only_up_to nearly almost about around"
    ),
    "q": (  # quantities that settle nobody
        "some most many few several half any a_few a_majority the_majority a_minority certain_of part plenty "
        "a_lot lots a_third a_quarter two_thirds one_half one_third a_couple various numerous whoever whichever "
        "somebody someone anyone anybody"
    ),
    "p": "him he she they this_person that_person former latter this_one",  # pronouns for the last subject
    "&": (  # joining words
        "and & nor while whereas plus as_well_as along_with together_with und et y \u548c \u4e0e \u800c \u4e14"
    ),
    "+": "but yet however though although",  # contrasting words
    "e": "as likewise similarly",  # 'as'
    "l": "role roles type identity status kind class nature character_type label designation",
    "L": "too as_well likewise_too one_too one_as_well",  # 'too', behind a name
    "E": (  # 'the same goes for'
        "just_like same_as_for same_goes_for same_for same_is_true_for same_is_true_of same_applies_to "
        "likewise_for so_too_is ditto_for same_holds_for"
    ),
    "X": (  # 'there is'
        "there_is there_are there's there_must_be there_exists there_exist exist we_have has_exactly"
    ),
    "i": (  # the writer, and what was just said
        "let_me let_us i we you it this i'm i've we've i'd we'll what let's lets one_can these_facts these_two me my"
    ),
    "$": "his her their its own whose",  # possessives
    "h": "that",  # 'that'
    # Frames: what a clause does with the statement in it.
    "c": (  # verbs and adjectives of concluding
        "concludes points_to point_to dictates dictate establishes concluded_that "
        "true safe_to_say fair_to_say conclude deduce infer derive find finds found see realize realise note "
        "identify identified figure figured establish established confirm confirms confirmed  shows shown "
        " proves proved proven verify verified ensure ensures obtain get gets reach reaches arrive learn "
        "give gives given_by yield yields demonstrate demonstrates follow follows concluded deduced inferred "
        "derived recognized recognised revealed reveals reveal considered classified categorized categorised "
        "labeled labelled deemed known_to_be understood clear evident obvious apparent_that settled think believe "
        "concluding making leaving makes leaves make leave makes_sense forces force leads_us lead_us tells_us "
        "tell_us indicates indicate indicating turns_out_that turns_out_to_be_that assigned assign assigns "
        "assigned_to designated with results resulting resolved denote denotes correspond corresponds maps "
        "discovered seen observe is_the_case the_fact_is have_shown including include"
    ),
    "`": "prove show",  # may order a proof
    "u": (  # of knowing; negated, they leave everything open
        "determine determined know known sure certain decide decided tell say_for_sure confident positive_that "
        "convinced"
    ),
    "S": (  # suppositions, which last until they are settled
        "for_the_sake_of_argument for_argument's_sake "
        "assume assumes assumed assuming suppose supposing supposed hypothetically imagine pretend let let_us_say "
        "let's_say lets_say consider_that consider_if hypothesize hypothesise postulate posit presume presuming "
        "granted granting what_if let's_pretend given_the_assumption say_for_instance"
    ),
    "<": (  # what is only to be checked
        "to_be_verified to_be_determined "
        "consider consider_the try trying test testing check_whether check_if check_that verify_that example "
        "for_example for_instance e_g we_need_to_check need_to_check to_check need_to_verify need_to_show "
        "need_to_prove to_show to_prove want_to_show want_to_prove must_show must_check have_to_check "
        "remains_to_check remains_to_show remains_to_be_shown remains_to_be_seen to_be_shown to_be_checked "
        "to_be_proved to_be_proven to_verify we_should_check to_see_if to_test goal_is_to_show goal hypothesis "
        "hypothetical assumption conjecture speculate picture let's_verify"
    ),
    "I": (  # conditions
        "just_in_case if whether unless would wouldn't iff would've when whenever provided provided_that "
        "providing as_long_as so_long_as on_condition_that on_the_condition_that in_case in_the_event "
        "in_the_event_that only_when only_if if_and_only_if even_if until once under_the_assumption "
        "under_the_condition on_the_assumption on_the_premise contingent_on depending_on conditional_on "
        "subject_to insofar_as inasmuch_as_if lest should_it with_the_assumption based_on_the_assumption "
        "assuming_that wherever had_it wants want wish wishes hope hopes hoping expect expected fear desire"
    ),
    "pv": "it's it_is",
    "hv": "that's",
    "vh": "is_if",
    "Ax": (
        "everyone_else_but everybody_else_but everyone_else_except everybody_else_except everyone_else_except_for "
        "everybody_else_except_for everyone_else_besides everyone_else_apart_from"
    ),
    "Xz": (
        "there_isn't_a_single there_is_not_a_single there_isn't_a there_isn't_any there_is_not_a there_aren't_any "
        "there_are_not_any there_isn't_one"
    ),
    "Iv": "were weren't",
    "^": "given considering seeing",  # 'given', a condition unless of evidence
    "G": (  # 'based on', before evidence
        "based_on from using by through after looking_at following in_light_of because_of under with_respect_to "
        "due_to going_by judging_by relying_on on_the_basis_of analyzing analysing combining examining evaluating "
        "putting reviewing taking working comparing having thanks_to per_our from_all consistent_with satisfies "
        "satisfy satisfying fits fit matching matches consistent_across in_view_of"
    ),
    "~": (  # 'according to'
        "according_to per in_the_words_of in_the_opinion_of in_the_view_of if_we_believe to_quote quoting"
    ),
    "W": "account telling version reckoning perspective viewpoint",  # of someone
    "J": (  # evidence
        "analysis reasoning information info clues clue logic deductions deduction above assertions constraints "
        "conditions condition facts puzzle evidence data premises inference inferences elimination steps process "
        "derivation argument rules"
    ),
    "j": (  # statements, someone's or as evidence
        "statement statements claim claims assertion accusation remark testimony utterance declaration words "
        "testimonies sentence"
    ),
    "Y": (  # verbs of saying
        "said says say saying claimed claiming stated states state asserted asserts assert remarked remarks "
        "commented comments comment mentioned mentions mention told tells telling accuses accused accusing thinks "
        "believes declared declares declare noted notes expressed expresses argued argues suggests suggested "
        "suggest insists insisted replied replies asks asked calls called call describes described labels alleges "
        "alleged swears swore vows announces announced admits reports reported explained explains answered "
        "whispers shouts quoth put_it puts_it denies denied thought believed claims_that wrote writes maintains "
        "maintained contends contended \u8bf4"
    ),
    "H": (  # hedges and alternatives
        "inclined tempted most_of_the_time some_of_the_time sometimes often usually occasionally "
        "at_times not_only not_just "
        "mostly looks_like feels_like "
        "likelihood could_think might_think could_believe could_say could_argue may_think would_think would_guess "
        "could_imagine or either maybe perhaps possibly possible might may probably likely presumably apparently "
        "supposedly allegedly seemingly seems seem appears appear guess guessing hunch suspect suspects bet "
        "unclear alternatively arguably conceivably potentially plausibly plausible tentatively doubtful unlikely "
        "chance chances odds probability leaning lean tend tends most_likely very_likely should_be ought_to "
        "doesn't_have_to don't_have_to need_not needn't not_necessarily sort_of kind_of somewhat rumor rumour "
        "rumored could_be_that feeling intuition gut estimate speculation tempting i'd_say i_would_say i_suppose "
        "we_suppose one_might suspected roughly maybe_not if_i_had_to_guess o ou oder debatable questionable "
        "percent hopefully"
    ),
    "}": "can could",  # 'can'
    "U": (  # what leaves everything open
        "undetermined unknown undeterminable unsolvable inconclusive ambiguous indeterminate undecided unsure "
        "uncertain vice_versa the_reverse other_way_around other_way_round either_order in_either_order "
        "no_way_to_know no_way_to_tell no_way_of_knowing no_way_to_determine not_enough_information "
        "insufficient_information insufficient not_enough_info could_be_wrong might_be_wrong may_be_wrong "
        "could_be_mistaken might_be_mistaken may_be_mistaken best_guess just_a_guess only_a_guess a_guess "
        "wild_guess no_idea not_possible_to_say hard_to_say hard_to_tell impossible_to_say impossible_to_tell "
        "can't_say cannot_say don't_know doesn't_matter_who can't_tell anyone's_guess "
        "take_this_with_a_grain_of_salt or_the_opposite roles_reversed roles_swapped the_other_way swapped "
        "reversed interchangeable not_confident don't_take_my_word"
    ),
    "M": (  # more than one solution, or none
        "not_unique isn't_unique non_unique no_unique more_than_one_solution more_than_one_answer "
        "more_than_one_assignment multiple_solutions several_solutions"
    ),
    "V": (  # corrections
        "wait no_wait correction hmm oops sorry mistake mistaken scratch_that scratch instead recheck reconsider "
        "reconsidering revised revise revising i_mean make_that strike_that on_second_thought my_bad no_no "
        "let_me_correct"
    ),
    "T": "actually",  # 'actually'
    "C": (  # conclusions, one step
        "whence wherefore therefore thus hence consequently thereby ergo so_we_get that_means donc \u56e0\u6b64 "
        "\u6240\u4ee5 \u6545"
    ),
    "s": "so",  # 'so'
    "y": "requires require means implies imply mean implying meaning entails",  # 'means', 'implies'
    "D": (  # conclusions, the last step
        "final_answer_would_be answer_would_be answer_will_be solution_would_be conclusion_would_be "
        "finally_then conclusion overall summary in_conclusion to_conclude in_summary to_summarize to_summarise "
        "summarizing summing_up to_sum_up in_short in_sum verdict qed we_conclude we_can_conclude i_conclude "
        "in_the_end all_in_all bottom_line final_answer final_result putting_it_all_together "
        "putting_everything_together putting_this_together to_wrap_up"
    ),
    "Q": "answer solution assignment arrangement configuration combination result outcome",  # the solution
    "P": "solutions answers assignments arrangements configurations combinations",  # solutions
    "*": (  # cases
        "case cases scenario scenarios possibility possibilities option options situation situations world worlds "
        "hypotheses alternative alternatives universe"
    ),
    "@": "another second third alternate different first fourth",  # ordinals
    "[": "where in_which under_which",  # 'in which'
    "r": "because since as_either \u56e0\u4e3a",  # reasons
    "d": (  # denials
        "mistake_to mistake_is_to mistake_is_that mistake_would_be_to error_is_to error_to "
        "no_evidence no_proof no_reason no_indication by_no_means under_no_circumstances false untrue "
        "wrong incorrect impossible lie_that a_lie nonsense no_way not_true not_the_case not_correct not_so "
        "isn't_true isn't_the_case doubt deny denying refuted disproved ruled_out myth fallacy refute reject "
        "rejected incorrectly wrongly falsely mistakenly ruling_out rule_out rules_out erroneous contrary_to fake "
        "doesn't_hold does_not_hold unfounded bogus"
    ),
    "K": (  # contradictions
        "contradiction contradictory contradicts contradict contradicting contradicted inconsistent "
        "contradictions doesn't_work does_not_work fails violates violate violated paradox"
    ),
    "b": (  # consistency
        "consistent valid correct right works hold holds feasible satisfied consistently final unique actual proper"
    ),
    "_": (  # looking at something
        "look check combine analyze analyse examine evaluate go work compare review put inspect use apply "
        "follow_the think_about"
    ),
}

# Predicates that say the same as the knight's role, and as the knave's; their letter is `t`.
TRUTHFUL = (
    "tells_the_truth tell_the_truth telling_the_truth always_tells_the_truth speaks_the_truth speak_the_truth "
    "speaking_the_truth told_the_truth spoke_the_truth has_told_the_truth tells_truth truthful truth-telling "
    "truthtelling honest tells_only_the_truth always_truthful speaks_truthfully"
)
LYING = (
    "lied told_a_lie has_lied tells_a_lie lies lie lying always_lies always_lie tells_lies tell_lies "
    "dishonest untruthful deceitful deceptive is_always_lying"
)

NUMBERS = {
    **{word: number for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven"))},
    **{"eight": 8, "nine": 9, "ten": 10, "dos": 2, "zwei": 2, "tres": 3, "drei": 3},
}
