"""What the made-up texts are about: orders, people, events, sensors, recipes and tickets."""

from __future__ import annotations

from posttrain.tasks.json_structure.fields import Field, choice, code, decimal, flag, integer, many, nested, text

NAMES = "Ann, Bob, Carla, David, Emma, Felix, Grace, Hugo, Irene, Jonas, Kira, Liam, Mona, Nils, Olga, Peter"
CITIES = "Berlin, Lisbon, Oslo, Turin, Vienna, Dublin, Prague, Malmo, Bern, Ghent, Porto, Riga"
STREETS = "Mill Road, Park Lane, Station Street, Garden Way, Church Hill, Harbour Row, Bridge Street, Elm Avenue"
GOODS = "chairs, lamps, desks, mirrors, shelves, clocks, kettles, carpets, candles, baskets"
FOODS = "flour, sugar, butter, rice, lentils, tomatoes, onions, cheese, mushrooms, spinach"

DOMAINS: dict[str, tuple[Field, ...]] = {
    "order": (
        text("customer, buyer, client", NAMES, "The order is from {}.", "{} has sent an order.", "Bill it to {}."),
        text("product, article", GOODS, "It is about {}.", "Wanted are {}.", "The catalogue page shows {}."),
        integer("quantity, count", 1, 60, "Please send {} of them.", "The amount is {} pieces.", "{} are needed."),
        text("city, destination", CITIES, "It goes to {}.", "Deliver it in {}.", "The shop in {} waits for it."),
        integer("days, delivery_days", 1, 30, "It has to arrive within {} days.", "Delivery takes {} days."),
        code("order_id, reference", "ABC", "The reference is {}.", "Filed as {}."),
        decimal("total, price", 500, 90000, "The sum is {} euros.", "In all that makes {} euros."),
        choice("shipping, transport", "standard, express, pickup", "Shipping: {}.", "The customer chose {}."),
        flag(
            "paid, is_paid", ["It is paid already.", "The money has come in."], ["It is not paid yet.", "Still unpaid."]
        ),
        nested(
            "address, deliver_to",
            [text("street", STREETS), integer("number", 1, 99), text("city", CITIES)],
            "The parcel goes to {number} {street} in {city}.",
            "Address: {street} {number}, {city}.",
        ),
        many(
            "items, lines",
            [text("name", GOODS), integer("quantity", 1, 20), decimal("price", 100, 9900)],
            "{quantity} {name} at {price} euros each",
            "On the list are {}.",
            "They want {}.",
        ),
    ),
    "person": (
        text("name, first_name", NAMES, "This is about {}.", "{} joins us today.", "Please welcome {}."),
        integer("age, years", 18, 70, "The form gives an age of {}.", "Born {} years ago.", "Age: {}."),
        text("city, home", CITIES, "Home is in {}.", "The move from {} went well.", "Lives in {}."),
        integer("room, office", 1, 99, "The desk is in room {}.", "Look for room {}."),
        text("manager, boss", NAMES, "The manager is {}.", "Questions go to {}, who leads the group."),
        code("badge, badge_id", "KLM", "The badge says {}.", "Badge number {}."),
        decimal("hours, weekly_hours", 1000, 4000, "The contract is for {} hours a week.", "Weekly hours: {}."),
        choice("team, group", "sales, support, design, finance", "The team is {}.", "Assigned to {}."),
        flag(
            "remote, from_home", ["Works from home.", "Never needs a desk."], ["Works on site.", "Comes in every day."]
        ),
        nested(
            "contact, in_emergency",
            [text("name", NAMES), text("city", CITIES), integer("extension", 100, 999)],
            "In an emergency call {name} in {city}, extension {extension}.",
            "Emergency contact: {name} from {city} on {extension}.",
        ),
        many(
            "children, family",
            [text("name", NAMES), integer("age", 1, 17)],
            "{name} aged {age}",
            "The children are {}.",
            "At home there are {}.",
        ),
    ),
    "event": (
        text(
            "title, topic",
            "yoga, chess, painting, robotics, cooking, poetry, film, choir",
            "The evening is about {}.",
            "Come to our {} meeting.",
            "Topic: {}.",
        ),
        text("host, organizer", NAMES, "The host is {}.", "{} has organised it.", "{} will open the door."),
        integer("seats, places", 5, 90, "There is room for {}.", "We have {} chairs.", "At most {} can come."),
        text("city, location", CITIES, "It takes place in {}.", "See you in {}.", "This time {} is the place."),
        integer("day, date", 1, 28, "Save day {} of the month.", "It is on the {} of this month."),
        code("booking, ticket_code", "RST", "Book with the code {}.", "Booking code {}."),
        decimal("fee, ticket_price", 100, 9000, "A ticket costs {} euros.", "The fee is {} euros."),
        choice("level, audience", "beginner, advanced, mixed", "Level: {}.", "The group is {}."),
        flag(
            "outdoors, open_air", ["We meet outside.", "It is in the garden."], ["We meet inside.", "There is a roof."]
        ),
        nested(
            "venue, place",
            [text("street", STREETS), integer("floor", 1, 12), text("owner", NAMES)],
            "The venue is on floor {floor} in {street} and belongs to {owner}.",
            "{owner} lends us floor {floor} at {street}.",
        ),
        many(
            "speakers, talks",
            [text("name", NAMES), integer("minutes", 5, 60)],
            "{name} for {minutes} minutes",
            "Speaking are {}.",
            "The programme: {}.",
        ),
    ),
    "sensor": (
        text(
            "place, site",
            "attic, cellar, kitchen, garage, garden, hall, office, stairs",
            "The sensor hangs in the {}.",
            "A reading from the {}.",
            "Site: {}.",
        ),
        integer("temperature, degrees", 1, 45, "It shows {} degrees.", "{} degrees were measured."),
        integer("humidity, moisture", 10, 95, "Humidity is at {} percent.", "The air holds {} percent."),
        text("technician, checked_by", NAMES, "{} checked it.", "The last visit was by {}."),
        integer("battery, charge", 1, 100, "The battery is at {} percent.", "Charge: {} percent left."),
        code("sensor_id, device", "XYZ", "Device {}.", "It is labelled {}."),
        decimal("voltage, volts", 100, 900, "The supply gives {} volts.", "Voltage: {}."),
        choice("status, state", "ok, warning, failed", "The status is {}.", "State: {}."),
        flag("online, connected", ["It is connected.", "The line is up."], ["It is offline.", "The line is dead."]),
        nested(
            "limits, allowed",
            [integer("low", 1, 15), integer("high", 16, 60), text("set_by", NAMES)],
            "{set_by} allows {low} to {high} degrees.",
            "The limits by {set_by} are {low} and {high} degrees.",
        ),
        many(
            "readings, log",
            [integer("hour", 0, 23), integer("degrees", 1, 45)],
            "{degrees} degrees at hour {hour}",
            "The log has {}.",
            "Measured were {}.",
        ),
    ),
    "recipe": (
        text(
            "dish, meal",
            "soup, stew, pie, salad, curry, pancakes, omelette, bread",
            "Today we make {}.",
            "Try this {}.",
            "The dish is {}.",
        ),
        text("main_ingredient, base", FOODS, "It is mostly {}.", "You need plenty of {}.", "Start with {}."),
        integer("minutes, time", 5, 95, "It takes {} minutes.", "After {} minutes it is done."),
        integer("servings, portions", 1, 12, "It serves {}.", "Enough for {} people."),
        text("cook, author", NAMES, "The recipe is by {}.", "{} wrote it down.", "Thanks to {} for this one."),
        code("page_id, card", "FGH", "It is on card {}.", "Card {}."),
        decimal("cost, expense", 100, 4000, "The ingredients cost {} euros.", "Cost: {} euros."),
        choice("course, served_as", "starter, main, dessert", "Course: {}.", "It is a {} dish."),
        flag(
            "vegan, plant_based",
            ["It is vegan.", "No animal products in it."],
            ["It is not vegan.", "There is egg in it."],
        ),
        nested(
            "oven, baking",
            [integer("degrees", 100, 250), integer("minutes", 5, 90), choice("mode", "fan, grill")],
            "Bake it at {degrees} degrees for {minutes} minutes in {mode} mode.",
            "Oven: {mode}, {degrees} degrees, {minutes} minutes.",
        ),
        many(
            "ingredients, needs",
            [text("name", FOODS), integer("grams", 10, 900)],
            "{grams} grams of {name}",
            "Take {}.",
            "Buy {}.",
        ),
    ),
    "ticket": (
        text("reporter, reported_by", NAMES, "{} reports a problem.", "A message from {} came in.", "Reported by {}."),
        text(
            "component, part",
            "printer, router, screen, keyboard, server, scanner, phone, camera",
            "The {} is broken.",
            "It concerns the {}.",
            "Again the {}.",
        ),
        integer("floor, level", 1, 20, "It is on floor {}.", "Go to floor {}."),
        text("assignee, owner", NAMES, "{} looks into it.", "It was given to {}.", "Assigned to {}."),
        integer("users, affected", 1, 80, "{} users are affected.", "It stops {} people from working."),
        code("ticket_id, case", "PQT", "The case is {}.", "Ticket {}."),
        decimal("hours, effort", 25, 4000, "The effort is {} hours.", "So far {} hours went into it."),
        choice("priority, urgency", "low, medium, high, critical", "Priority: {}.", "The urgency is {}."),
        flag(
            "resolved, done",
            ["It works again.", "The case is closed."],
            ["It is still open.", "Nothing helped so far."],
        ),
        nested(
            "machine, device",
            [text("city", CITIES), integer("rack", 1, 40), integer("slot", 1, 24)],
            "The machine stands in {city}, rack {rack}, slot {slot}.",
            "Find it in slot {slot} of rack {rack} in {city}.",
        ),
        many(
            "steps, history",
            [text("by", NAMES), integer("minutes", 1, 90)],
            "{minutes} minutes by {by}",
            "Work so far: {}.",
            "Logged were {}.",
        ),
    ),
}
