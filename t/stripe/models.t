# The promise: what the stand-in accepts by its own rules (and so in the demo, where there is no npm) is a part of what Stripe's types
# allow: no address, parameter or value of its own.
use v5.36;
use Billing::Stripe;
use Billing::Stripe::Account;
use Billing::Stripe::Api;
use Billing::Stripe::Schema qw(stripe_schemas);
use Test::More;

my $schemas = stripe_schemas(Billing::Stripe::schema_file());
my $api = Billing::Stripe::Api->new(account => Billing::Stripe::Account->new(key => 'sk_test_x', version => '2026-02-25.clover'));
my %own = map { ("$_->{method} $_->{path}" => $_->{schema}) } $api->{routes}->@*;

is_deeply [sort keys %own], [sort keys %$schemas], 'the same calls';

# The alternatives of a schema, an empty text aside.
sub alternatives($schema) {
    return map { alternatives($_) } $schema->{anyOf}->@* if $schema->{anyOf};
    return $schema->{enum} && "@{$schema->{enum}}" eq '' ? () : $schema;
}

sub beyond($own, $theirs, $path) {
    my @theirs = alternatives($theirs);
    my @wrong;
    for my $mine (alternatives($own)) {
        my ($same) = grep { $_->{type} eq $mine->{type} && !($_->{enum} xor $mine->{enum}) } @theirs;
        ($same) = grep { $_->{type} eq $mine->{type} } @theirs if !$same;
        if (!$same) {
            push @wrong, "$path: $mine->{type}";
            next;
        }
        my %allowed = map { $_ => 1 } @{$same->{enum} // []};
        push @wrong, map { "$path: $_" } grep { %allowed && !$allowed{$_} } @{$mine->{enum} // []};
        push @wrong, beyond($mine->{items}, $same->{items}, "${path}[]") if $mine->{items};
        for my $name (sort keys %{$mine->{properties} // {}}) {
            my $other = $same->{properties}{$name};
            push @wrong, $other ? beyond($mine->{properties}{$name}, $other, "$path.$name") : "$path.$name";
        }
    }
    return @wrong;
}

is_deeply [beyond({type => 'object', properties => {a => {type => 'string', enum => ['x']}, b => {type => 'string'}}},
    {type => 'object', properties => {a => {type => 'string', enum => ['y']}}}, 'try')], ['try.a: x', 'try.b'], 'what is beyond is found';
is join("\n", map { beyond($own{$_}, $schemas->{$_}, $_) } sort keys %own), '', 'nothing of its own';

done_testing;
